"""Abilities from responses to items of known parameters, with standard errors.

ML maximises the likelihood, MAP the likelihood times a normal prior, EAP is the posterior mean (Bock &
Mislevy 1982, Applied Psychological Measurement 6(4), 431-444), WLE removes the first-order bias of ML
(Warm 1989, Psychometrika 54(3), 427-450). Standard errors: 1 / sqrt(information) for ML, the curvature of the
posterior for MAP, its standard deviation for EAP; for WLE the information plus the curvature of the weight
(as mirt has it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zpd_ray.irt import checks
from zpd_ray.irt.matrix.expected import expected
from zpd_ray.irt.matrix.likelihood import (
    CELLS,
    NODES,
    Array,
    Items,
    Pieces,
    derivatives,
    information,
    log_likelihood,
)

Estimator = Literal["ml", "map", "eap", "wle"]

BOUND = 40.0  # of a (theta - b), beyond which a response tells nothing of theta
ROUNDING = 1e-12  # of a log-likelihood
NEAR, FURTHER = 6.0, 9  # logits beyond the items that are scanned evenly, and points further out


@dataclass(frozen=True)
class Ability:
    """theta and se in logits, (n_respondents,); flags (n_respondents,): "", "all_right", "all_wrong", or
    "at_floor" (no better than guessing). theta is infinite, and se with it, where ML has no finite maximum.
    """

    theta: Array
    se: Array
    flags: tuple[str, ...]
    estimator: str


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
        theta, se = expected(items, pieces, theta, prior)
        return theta, se, flags
    finite = np.isfinite(theta)
    se = np.full(theta.size, np.inf)
    at = np.where(finite, theta, 0.0)
    _, curvature, info, _ = derivatives(items, pieces, at)
    precision = info if prior is None else -curvature + prior[1] ** -2
    if estimator == "wle":
        sharp = precision - _weight_curvature(items, pieces, at)
        precision = np.where(sharp > 0.0, sharp, precision)
    se[finite] = 1.0 / np.sqrt(np.maximum(precision[finite], 1e-300))
    return theta, se, flags


def _weight_curvature(items: Items, pieces: Pieces, theta: Array) -> Array:
    """Derivative of Warm's correction J / 2I, by central differences."""
    above, below = (derivatives(items, pieces, theta + step)[2:] for step in (1e-4, -1e-4))
    with np.errstate(divide="ignore", invalid="ignore"):  # far off nothing informs: NaN, and not taken
        return np.asarray((above[1] / above[0] - below[1] / below[0]) / 4e-4)


def _root(
    items: Items,
    pieces: Pieces,
    estimator: Estimator,
    prior: tuple[float, float] | None,
) -> tuple[Array, NDArray[np.str_]]:
    """Zero of the estimating equation by Newton's method in a shrinking bracket; flags of extreme scores."""
    right = sum(s.sum(axis=1) for s, _, _ in pieces)
    wrong = sum(f.sum(axis=1) for _, f, _ in pieces)
    flags = np.where(
        right + wrong == 0, "", np.where(wrong == 0, "all_right", np.where(right == 0, "all_wrong", ""))
    ).astype("<U13")
    theta, low, high, at_end = _bracket(items, pieces, prior, estimator)
    infinite = np.zeros(theta.size, bool)
    if estimator == "ml":
        infinite = flags != ""
        floor = ~infinite & at_end & items.c.any()
        flags[floor] = "at_floor"
        infinite |= floor
    last = high - low
    moving = np.flatnonzero(~infinite)
    for _ in range(200):
        if not moving.size:
            break
        at = theta[moving]
        slope, fisher = _equation(items, pieces, at, moving, estimator, prior)
        low[moving], high[moving] = (
            np.where(slope > 0.0, at, low[moving]),
            np.where(slope > 0.0, high[moving], at),
        )
        new = at + slope / fisher
        # halve the bracket where Newton leaves it, or does not halve its step (rtsafe, Press et al. 2007,
        # 9.4)
        good = (new >= low[moving]) & (new <= high[moving])
        good &= np.abs(new - at) <= np.maximum(0.5 * last[moving], 1e-10)
        new = np.where(good, new, 0.5 * (low[moving] + high[moving]))
        last[moving], theta[moving] = np.abs(new - at), new
        moving = moving[last[moving] >= 1e-10]
    flags[moving[last[moving] >= 1e-6]] = "not_converged"
    return np.where(infinite, np.where(flags == "all_right", np.inf, -np.inf), theta), flags


def _equation(
    items: Items,
    pieces: Pieces,
    theta: Array,
    rows: NDArray[np.intp],
    estimator: Estimator,
    prior: tuple[float, float] | None,
) -> tuple[Array, Array]:
    """Left side of the estimating equation of some respondents, and what its slope is about, negated."""
    slope, curvature, info, warm = derivatives(items, pieces, theta, rows)
    info = np.maximum(info, 1e-300)
    if prior is not None:
        precision = prior[1] ** -2
        return slope - (theta - prior[0]) * precision, np.maximum(-curvature, 0.0) + precision
    return slope + 0.5 * warm / info if estimator == "wle" else slope, info


def _bracket(
    items: Items,
    pieces: Pieces,
    prior: tuple[float, float] | None,
    estimator: Estimator,
) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
    """The highest point of a scan, and those on its sides: with guessing there may be several maxima.

    Last, whether it lies at the lower end, beyond which even the flattest item tells nothing any more.
    """
    further = np.geomspace(NEAR, BOUND / min(1.0, items.a.min()), FURTHER)
    inner = np.linspace(items.b.min() - NEAR, items.b.max() + NEAR, 49)
    points = np.concatenate([items.b.min() - further[:0:-1], inner, items.b.max() + further[1:]])
    if prior is not None:
        ends = min(points[0], prior[0] - 1.0), max(points[-1], prior[0] + 1.0)
        points = np.concatenate([[ends[0]], points, [ends[1]]])
    height = log_likelihood(items, pieces, points)
    if prior is not None:
        height -= 0.5 * ((points - prior[0]) / prior[1]) ** 2
    if estimator == "wle":
        height += 0.5 * np.log(np.maximum(information(items, pieces, points), 1e-300))
    top = height.max(axis=1)
    flat = height[:, 0] >= top - ROUNDING * np.abs(top)  # down there all is alike, but for rounding
    best = np.where(flat, 0, height.argmax(axis=1))
    low, high = points[np.maximum(best - 1, 0)], points[np.minimum(best + 1, points.size - 1)]
    inside = (best > 0) & (best < points.size - 1)
    return np.where(inside, points[best], 0.5 * (low + high)), low, high, best <= 1
