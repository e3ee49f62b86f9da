"""Abilities from responses to items of known parameters, with standard errors.

ML maximises the likelihood, MAP the likelihood times a normal prior, EAP is the posterior mean (Bock &
Mislevy 1982, Applied Psychological Measurement 6(4), 431-444), WLE removes the first-order bias of ML
(Warm 1989, Psychometrika 54(3), 427-450). Standard errors: 1 / sqrt(information) for ML, the curvature of the
posterior for MAP, its standard deviation for EAP; for WLE the information plus the curvature of the weight
(as mirt has it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zpd_ray.irt import checks
from zpd_ray.irt.models import terms
from zpd_ray.irt.quadrature import STEP_PER_SD, normalise, uniform_grid

Array = NDArray[np.float64]
Estimator = Literal["ml", "map", "eap", "wle"]

CELLS = 1 << 20  # respondents times items worked on at a time
NODES = 64  # of a grid, which takes the place of respondents where they are fewer
BOUND = 40.0  # logits beyond the outermost item: no finite estimate lies further out
REACH = 7.5  # posterior standard deviations covered on either side
WIDE = 2000.0  # nodes of one respondent's grid, from which panels that widen outwards take its place
PANEL, PANEL_WEIGHTS = np.polynomial.legendre.leggauss(8)


@dataclass(frozen=True)
class Ability:
    """theta and se in logits, (n_respondents,); flags (n_respondents,): "", "all_right", "all_wrong", or
    "at_floor" (no better than guessing). theta is infinite, and se with it, where ML has no finite maximum.
    """

    theta: Array
    se: Array
    flags: tuple[str, ...]
    estimator: str


@dataclass(frozen=True)
class Items:
    """Responses as weighted successes and trials (n_respondents, n_items), and item parameters (n_items,)."""

    successes: NDArray[Any]
    trials: NDArray[Any]
    freq: Array
    a: Array
    b: Array
    c: Array

    def parts(self, rows: slice) -> list[tuple[Array, Array, slice]]:
        """Successes and failures of some respondents, cut into pieces of at most CELLS."""
        n = self.successes[rows].shape[0]
        size = max(1, CELLS // max(n, NODES))
        cuts = [slice(i, i + size) for i in range(0, self.b.size, size)]
        pieces = []
        for cut in cuts:
            s = self.successes[rows, cut] * self.freq[cut]
            pieces.append((s, self.trials[rows, cut] * self.freq[cut] - s, cut))
        return pieces


def ability(
    responses: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    c: ArrayLike | None = None,
    estimator: Estimator = "eap",
    *,
    trials: ArrayLike | None = None,
    freq: ArrayLike | None = None,
    theta_mean: float = 0.0,
    theta_sd: float = 1.0,
) -> Ability:
    """Ability of each respondent.

    responses: (n_respondents, n_items) of 0, 1, NaN (or -1 in integer arrays); with `trials` of the same
    shape, counts of successes, trials = 0 where missing. a, b, c: scalars or (n_items,); c None for no
    guessing. freq: (n_items,) whole numbers, column j standing for freq[j] items with the same parameters
    and responses. theta_mean, theta_sd: normal prior of MAP and EAP (ML and WLE use none). Raises
    ValueError for bad input.
    """
    if estimator not in ("ml", "map", "eap", "wle"):
        raise ValueError(f"estimator must be 'ml', 'map', 'eap' or 'wle', got {estimator!r}.")
    if not (0.0 < theta_sd < np.inf and np.isfinite(theta_mean)):
        raise ValueError(f"theta_sd must be finite and > 0, got {theta_sd}; estimator='ml' uses no prior.")
    s, k = checks.binary(responses) if trials is None else checks.counts(responses, trials)
    n_items = s.shape[1]
    items = Items(
        s,
        k,
        checks.frequencies(freq, n_items),
        checks.vector("a", a, n_items, low=1e-6),
        checks.vector("b", b, n_items),
        checks.floor(c, n_items),
    )
    silent = np.flatnonzero(~(k > 0).any(axis=1))
    if silent.size and estimator in ("ml", "wle"):
        raise ValueError(
            f"respondent {silent[0]} has no response, so no {estimator} exists; drop it, or use 'eap'."
        )
    prior = (theta_mean, theta_sd) if estimator in ("map", "eap") else None
    rows = max(1, 4 * CELLS // max(n_items, 4 * NODES))
    found = [_block(items, slice(i, i + rows), estimator, prior) for i in range(0, s.shape[0], rows)]
    theta, se, flags = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return Ability(theta, se, tuple(flags.tolist()), estimator)


def _block(
    items: Items, rows: slice, estimator: Estimator, prior: tuple[float, float] | None
) -> tuple[Array, Array, NDArray[np.str_]]:
    pieces = items.parts(rows)
    theta, flags = _root(items, pieces, estimator, prior)
    if estimator == "eap" and prior is not None:
        theta, se = _expected(items, pieces, theta, prior)
        return theta, se, flags
    finite = np.isfinite(theta)
    se = np.full(theta.size, np.inf)
    at = np.where(finite, theta, 0.0)
    _, curvature, info, _ = _derivatives(items, pieces, at)
    precision = info if prior is None else -curvature + prior[1] ** -2
    if estimator == "wle":
        sharp = precision - _weight_curvature(items, pieces, at)
        precision = np.where(sharp > 0.0, sharp, precision)
    se[finite] = 1.0 / np.sqrt(np.maximum(precision[finite], 1e-300))
    return theta, se, flags


def _weight_curvature(items: Items, pieces: list[tuple[Array, Array, slice]], theta: Array) -> Array:
    """Derivative of Warm's correction J / 2I, by central differences."""
    above, below = (_derivatives(items, pieces, theta + step)[2:] for step in (1e-4, -1e-4))
    with np.errstate(divide="ignore", invalid="ignore"):  # far off nothing informs: NaN, and not taken
        return np.asarray((above[1] / above[0] - below[1] / below[0]) / 4e-4)


def _derivatives(
    items: Items, pieces: list[tuple[Array, Array, slice]], theta: Array
) -> tuple[Array, Array, Array, Array]:
    """Slope and curvature of the log-likelihood, information I, and Warm's J = sum P' P'' / (P Q)."""
    slope, curvature, info, warm = (np.zeros(theta.size) for _ in range(4))
    for s, f, cut in pieces:
        a, c = items.a[cut], items.c[cut]
        t = terms(a * (theta[:, None] - items.b[cut]), c)
        slope += (s * t.d_right + f * t.d_wrong) @ a
        curvature += (s * t.dd_right + f * t.dd_wrong) @ a**2
        star = -t.d_wrong
        # I = P'^2 / PQ and J = P' P'' / PQ, with P' / P = d_right, P' / Q = P* and P'' = (1 - 2 P*) P'
        each = (s + f) * t.d_right * star
        info += each @ a**2
        warm += (each * (1.0 - 2.0 * star)) @ a**3
    return slope, curvature, info, warm


def _root(
    items: Items,
    pieces: list[tuple[Array, Array, slice]],
    estimator: Estimator,
    prior: tuple[float, float] | None,
) -> tuple[Array, NDArray[np.str_]]:
    """Zero of the estimating equation by Newton's method in a shrinking bracket; flags of extreme scores."""
    right = sum(s.sum(axis=1) for s, _, _ in pieces)
    wrong = sum(f.sum(axis=1) for _, f, _ in pieces)
    flags = np.where(
        right + wrong == 0, "", np.where(wrong == 0, "all_right", np.where(right == 0, "all_wrong", ""))
    )
    low, high = _bracket(items, pieces, prior, estimator)
    theta, last = 0.5 * (low + high), high - low
    fixed = np.zeros(theta.size, bool)
    if estimator == "ml":
        fixed = flags != ""
        floor = ~fixed & (low <= items.b.min() - BOUND) & items.c.any()
        flags = np.where(floor, "at_floor", flags)
        fixed |= floor
    for _ in range(200):
        slope, curvature, info, warm = _derivatives(items, pieces, theta)
        if estimator == "wle":
            slope = slope + 0.5 * warm / np.maximum(info, 1e-300)
        fisher = np.maximum(info, 1e-300) if prior is None else np.maximum(-curvature, 0.0) + prior[1] ** -2
        if prior is not None:
            slope = slope - (theta - prior[0]) / prior[1] ** 2
        low, high = np.where(slope > 0.0, theta, low), np.where(slope > 0.0, high, theta)
        new = theta + slope / fisher
        # halve the bracket where Newton leaves it, or does not halve its step (rtsafe, Press et al. 2007,
        # 9.4)
        good = (new > low) & (new < high) & (np.abs(new - theta) <= np.maximum(0.5 * last, 1e-10))
        new = np.where(good, new, 0.5 * (low + high))
        last = np.abs(new - theta)
        moved = np.where(fixed, 0.0, np.abs(new - theta))
        theta = new
        if moved.max(initial=0.0) < 1e-10:
            break
    if moved.max(initial=0.0) >= 1e-6:
        flags = np.where(moved >= 1e-6, "not_converged", flags)
    infinite = np.where(flags == "all_right", np.inf, -np.inf)
    return np.where(fixed, infinite, theta), flags.astype("<U13")


def _bracket(
    items: Items,
    pieces: list[tuple[Array, Array, slice]],
    prior: tuple[float, float] | None,
    estimator: Estimator,
) -> tuple[Array, Array]:
    """Interval that holds the maximum. With guessing there may be several: the highest of a scan."""
    n = pieces[0][0].shape[0]
    ends = items.b.min() - BOUND, items.b.max() + BOUND
    if prior is not None:
        ends = min(ends[0], prior[0] - 1.0), max(ends[1], prior[0] + 1.0)
    if not items.c.any():
        return np.full(n, ends[0]), np.full(n, ends[1])
    inner = np.linspace(items.b.min() - 6.0, items.b.max() + 6.0, 49)
    points = np.concatenate([[ends[0]], inner, [ends[1]]])
    height = _log_likelihood(items, pieces, points)
    if prior is not None:
        height -= 0.5 * ((points - prior[0]) / prior[1]) ** 2
    if estimator == "wle":
        shared = [np.ones((1, cut_s.shape[1])) for cut_s, _, _ in pieces]
        tested = [
            (0.0 * one, one * items.freq[cut], cut) for one, (_, _, cut) in zip(shared, pieces, strict=True)
        ]
        height += 0.5 * np.log(
            [
                np.maximum(_derivatives(items, tested, points[i : i + 1])[2][0], 1e-300)
                for i in range(points.size)
            ]
        )
    best = height.argmax(axis=1)
    return points[np.maximum(best - 1, 0)], points[np.minimum(best + 1, points.size - 1)]


def _log_likelihood(items: Items, pieces: list[tuple[Array, Array, slice]], points: Array) -> Array:
    """Log-likelihood of every respondent at shared points, (n_respondents, n_points)."""
    total = np.zeros((pieces[0][0].shape[0], points.size))
    for s, f, cut in pieces:
        size = max(1, CELLS // s.shape[1])
        for start in range(0, points.size, size):
            part = slice(start, start + size)
            logit = items.a[cut, None] * (points[part] - items.b[cut, None])
            if items.c[cut].any():
                t = terms(logit, items.c[cut, None])
                total[:, part] += s @ t.log_right + f @ t.log_wrong
                continue
            # log right - log wrong is the logit itself, whose sum is linear in theta
            log_wrong = -np.maximum(logit, 0.0) - np.log1p(np.exp(-np.abs(logit)))
            slope = s @ items.a[cut]
            total[:, part] += np.outer(slope, points[part]) - (s @ (items.a[cut] * items.b[cut]))[:, None]
            total[:, part] += (s + f) @ log_wrong
    return total


def _expected(
    items: Items, pieces: list[tuple[Array, Array, slice]], mode: Array, prior: tuple[float, float]
) -> tuple[Array, Array]:
    """Posterior means and sds, on one grid for all respondents or, where they are narrow, on one for each."""
    _, curvature, _, _ = _derivatives(items, pieces, mode)
    sd = 1.0 / np.sqrt(np.maximum(-curvature, 0.0) + prior[1] ** -2)
    narrow = STEP_PER_SD * _narrowest(items, pieces, mode, prior[1])
    low, high = (mode - REACH * prior[1]).min(), (mode + REACH * prior[1]).max()
    mean, spread = np.empty(mode.size), np.empty(mode.size)
    own_nodes = 4.0 * REACH * sd / narrow
    everyone, wide = np.arange(mode.size), np.flatnonzero(own_nodes > WIDE)
    groups = []
    most = 4.0 * CELLS / mode.size  # of a grid that all share
    if (high - low) / narrow <= max(200.0, min(float(own_nodes.sum()), most)):
        groups.append((everyone, *_uniform(low, high, narrow)))
    else:
        others = np.setdiff1d(everyone, wide)
        starts, stops = mode - 2.0 * REACH * sd, mode + 2.0 * REACH * sd
        if others.size:
            low, high = starts[others].min(), stops[others].max()
        together = others.size and (high - low) / narrow <= min(float(own_nodes[others].sum()), most)
        for rows in [others] if together else others[:, None]:
            groups.append((rows, *_uniform(starts[rows].min(), stops[rows].max(), narrow)))
        if wide.size:
            groups.append((wide, *_panels(items, prior, mode[wide])))
    for rows, nodes, log_step in groups:
        own = [(s[rows], f[rows], cut) for s, f, cut in pieces]
        weights, _ = normalise(
            _log_likelihood(items, own, nodes) + log_step - 0.5 * ((nodes - prior[0]) / prior[1]) ** 2
        )
        mean[rows] = weights @ nodes
        middle = float(mean[rows].mean())
        spread[rows] = np.sqrt(np.maximum(weights @ (nodes - middle) ** 2 - (mean[rows] - middle) ** 2, 0.0))
    return mean, spread


def _uniform(low: float, high: float, step: float) -> tuple[Array, Array]:
    """Nodes, and the log of what each counts for: all the same."""
    nodes = uniform_grid(low, high, step)
    return nodes, np.zeros(nodes.size)


def _panels(items: Items, prior: tuple[float, float], mode: Array) -> tuple[Array, Array]:
    """Nodes and log weights for responses that only bound theta on one side, under a prior that is far wider.

    The likelihood changes near the items and is constant or zero beyond: panels of about a logit there, each
    half as wide again further out, as far as the prior goes (Gauss-Legendre in each).
    """
    low, high = items.b.min() - 20.0 / items.a.min(), items.b.max() + 20.0 / items.a.min()
    width = max(1.5 / float(items.a.max()), float(high - low) / 200.0)
    inner = np.linspace(low, high, int(np.ceil((high - low) / width)) + 1)
    reach = max(abs(float(mode.min()) - low), abs(float(mode.max()) - high), abs(prior[0]) + high - low)
    outward = [width]
    while sum(outward) < reach + 2.0 * REACH * prior[1]:
        outward.append(1.5 * outward[-1])
    beyond = np.cumsum(outward)
    ends = np.concatenate([low - beyond[::-1], inner, high + beyond])
    half = 0.5 * np.diff(ends)[:, None]
    nodes = 0.5 * (ends[1:] + ends[:-1])[:, None] + half * PANEL
    return nodes.reshape(-1), np.log(half * PANEL_WEIGHTS).reshape(-1)


def _narrowest(items: Items, pieces: list[tuple[Array, Array, slice]], mode: Array, sd: float) -> float:
    """Lower bound of the posterior sds: the largest information that any respondent's items give nearby."""
    points = np.unique(np.concatenate([mode, np.linspace(mode.min() - sd, mode.max() + sd, 5)]))
    points = points[:: max(1, points.size // 16)]
    info = np.zeros((pieces[0][0].shape[0], points.size))
    for s, f, cut in pieces:
        t = terms(items.a[cut, None] * (points - items.b[cut, None]))
        info += (s + f) @ (-t.dd_wrong * items.a[cut, None] ** 2)
    return float(1.0 / np.sqrt(info.max() + sd**-2))
