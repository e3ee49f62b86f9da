"""Marginal likelihood of item parameters, abilities integrated out, and its derivatives.

Respondent n, item i: s_ni of k_ni right with P = c_i + (1 - c_i) sigmoid(a_i z + d_i), z ~ N(0, 1) (Bock &
Aitkin 1981, Psychometrika 46(4), 443-459; here by Newton's method instead of EM). A Rasch model with
theta ~ N(0, sd^2) is the same with one slope a = sd for all items, theta = sd z and b = -d. Gradient and
Hessian by the identities of Fisher and Louis (Louis 1982), as in `marginal`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from zpd_ray.irt.models import Plain, Terms, terms
from zpd_ray.irt.newton import PRODUCT
from zpd_ray.irt.quadrature import STEP_PER_SD, normalise, uniform_grid, weighted_polynomials
from zpd_ray.irt.work import TooMuchWorkError, Work

Array = NDArray[np.float64]

CELLS = 1 << 21  # respondents times the wider of nodes and items, worked on at a time
MAX_CURVES = 1 << 22  # items times nodes: some 35 MB for each of about fifteen arrays
EDGE_MASS = 1e-9
SERIES_TOLERANCE = 1e-9
# Over respondents, nodes and items, of weights and gradient, and of a polynomial: four and more, each twice
# as long as in the product of a matrix with itself, which PRODUCT is.
PASSES = 8.0
CURVE = 0.15  # about what a curve at a node takes, with what comes of it, in microseconds


@dataclass(frozen=True)
class Responses:
    """Responses reduced to what the model needs.

    successes: (n, n_items), or None where scores are sufficient (one slope, no guessing, complete). trials:
    (n, n_items), or (n_items,) where it is the same for every respondent. freq: (n,) respondents per row.
    score: (n,) weighted successes of a row. totals: (n_items,) successes of an item over all respondents.
    """

    successes: Array | None
    trials: Array
    freq: Array
    score: Array
    totals: Array

    @property
    def n_items(self) -> int:
        return self.totals.size

    def chunks(self, n_nodes: int) -> Iterator[Responses]:
        """Rows in pieces that fit the cache."""
        size = max(1, CELLS // max(n_nodes, self.n_items))
        if size >= self.freq.size:
            yield self
            return
        for start in range(0, self.freq.size, size):
            part = slice(start, start + size)
            s = None if self.successes is None else self.successes[part]
            k = self.trials if self.trials.ndim == 1 else self.trials[part]
            yield Responses(s, k, self.freq[part], self.score[part], self.totals)


class Parameters(NamedTuple):
    """Slopes, intercepts and floors, each (n_items,)."""

    a: Array
    d: Array
    c: Array


@dataclass(frozen=True)
class Model:
    """How the vector of free parameters maps to (a, d, c).

    phi = (d, one slope) with common slopes, (d, a) with free ones, (d, a, logit c) with free floors, whose
    prior is Beta(floor_prior) on c.
    """

    n_items: int
    common_slope: bool
    c: Array
    floor_prior: tuple[float, float] | None = None

    @property
    def free_floor(self) -> bool:
        return self.floor_prior is not None

    def unpack(self, phi: Array) -> Parameters:
        n = self.n_items
        if self.common_slope:
            return Parameters(np.full(n, phi[-1]), phi[:n], self.c)
        return Parameters(phi[n : 2 * n], phi[:n], expit(phi[2 * n :]) if self.free_floor else self.c)

    @property
    def guessing(self) -> bool:
        return self.free_floor or bool(self.c.any())


class Scores(NamedTuple):
    """Derivatives of the log-probabilities at each node, (n_items, n_nodes): by d_i, and by logit c_i."""

    t: Terms | Plain
    nodes: Array
    floor_right: Array
    floor_wrong: Array


def grid(model: Model, phi: Array, trials: Array, reach: float) -> Array:
    """Nodes over +-reach, fine enough for the narrowest posterior that complete data would give."""
    p = model.unpack(phi)
    most = trials if trials.ndim == 1 else trials.max(axis=0)
    points = np.linspace(-4.0, 4.0, 17)
    slope = -terms(p.a[:, None] * points + p.d[:, None]).dd_wrong
    info = float(((most * p.a**2) @ slope).max())
    step = STEP_PER_SD / np.sqrt(1.0 + info)
    if 2.0 * reach / step * p.a.size > MAX_CURVES:
        raise TooMuchWorkError(
            f"abilities are told so closely by {most.sum():.0f} responses that curves of {p.a.size} items "
            "would not fit into memory; give fewer items or rollouts."
        )
    return uniform_grid(-reach, reach, step)


def scores(p: Parameters, nodes: Array) -> Scores:
    """Everything about the items at the nodes."""
    t = terms(p.a[:, None] * nodes + p.d[:, None], p.c[:, None])
    if not p.c.any():
        return Scores(t, nodes, np.zeros((0, 0)), np.zeros((0, 0)))
    right, odds = np.exp(t.log_right), (p.c * (1.0 - p.c))[:, None]
    return Scores(t, nodes, odds * (1.0 + t.d_wrong) / right, np.broadcast_to(-p.c[:, None], right.shape))


def weigh(model: Model, data: Responses, p: Parameters, at: Scores) -> tuple[Array, Array]:
    """Posterior weights (n, n_nodes) of each row's ability and its log marginal likelihood (n,)."""
    nodes, t = at.nodes, at.t
    step = float(nodes[1] - nodes[0])
    log_weights = np.asarray(data.trials @ t.log_wrong - 0.5 * nodes**2)
    if model.guessing:
        log_weights = log_weights + np.asarray(data.successes) @ (t.log_right - t.log_wrong)
        return _normalised(log_weights, 0.0, step)
    slope = data.score * p.a[0] if data.successes is None else data.successes @ p.a
    level = 0.0 if data.successes is None else data.successes @ p.d
    return _normalised(slope[:, None] * nodes + log_weights, level, step)


def _normalised(log_weights: Array, level: Array | float, step: float) -> tuple[Array, Array]:
    weights, log_sums = normalise(log_weights)
    return weights, log_sums + level + np.log(step / np.sqrt(2.0 * np.pi))


def objective(
    model: Model, data: Responses, phi: Array, with_hessian: bool, work: Work | None = None
) -> tuple[float, Array, Array | None]:
    """Marginal log-likelihood (plus the log prior of free floors), gradient and Hessian at phi.

    work: what it may take; None: whatever it takes. Raises TooMuchWorkError.
    """
    work = work or Work(np.inf)
    p = model.unpack(phi)
    at, weights = _posterior(model, data, phi, p)
    work.add((CURVE + PASSES * PRODUCT * len(data.freq)) * at.nodes.size * model.n_items)
    n = model.n_items
    size = n * (3 if model.free_floor else 2)
    value, gradient = 0.0, np.zeros(size)
    hessian = np.zeros((phi.size, phi.size)) if with_hessian else None
    curvature = np.zeros((6, n))
    for chunk, w, log_marginal in weights:
        value += float(chunk.freq @ log_marginal)
        _add_gradient(model, chunk, w, at, p, gradient, curvature)
        if hessian is None:
            continue
        if chunk.successes is None:
            _add_score_covariance(model, chunk, w, at, hessian)
        else:
            _add_covariance(model, chunk, w, at, hessian, work)
    if data.successes is None:
        value += float(data.totals @ p.d)
    if not model.guessing:
        gradient[:n] += data.totals
    if hessian is not None:
        hessian += _complete(model, curvature)
    gradient = np.append(gradient[:n], gradient[n:].sum()) if model.common_slope else gradient
    if model.floor_prior is not None:
        value += _floor_prior(model.floor_prior, p.c, gradient, hessian)
    return value, gradient, hessian


Weights = list[tuple[Responses, Array, Array]]


def _posterior(model: Model, data: Responses, phi: Array, p: Parameters) -> tuple[Scores, Weights]:
    """Weights of every chunk on a grid wide enough for all of them."""
    for reach in (_first_reach(model, data, p), 6.5, 9.0, 14.0, 25.0):
        at = scores(p, grid(model, phi, data.trials, reach))
        found = [(chunk, *weigh(model, chunk, p, at)) for chunk in data.chunks(at.nodes.size)]
        if max(max(w[:, 0].max(), w[:, -1].max()) for _, w, _ in found) < EDGE_MASS:
            break
    return at, found


def _first_reach(model: Model, data: Responses, p: Parameters) -> float:
    """How far out abilities lie by their scores, plus eight posterior sds; at most 6.5."""
    if model.guessing or data.successes is not None:
        return 6.5
    points = np.arange(0.5, 6.5, 0.5)
    t = terms(p.a[:, None] * np.concatenate([points, -points]) + p.d[:, None])
    above, below = np.split(-data.trials @ t.d_wrong, 2)  # expected scores
    inside = (above >= data.score.max()) & (below <= data.score.min())
    if not inside.any():
        return 6.5
    first = int(inside.argmax())
    info = (data.trials * p.a**2) @ -t.dd_wrong
    return min(6.5, points[first] + 8.0 / np.sqrt(1.0 + min(info[first], info[first + points.size])))


def _add_gradient(
    model: Model, chunk: Responses, w: Array, at: Scores, p: Parameters, gradient: Array, curvature: Array
) -> None:
    """Add a chunk's gradient by (d, a, logit c), and the sums of second derivatives to `curvature`."""
    n, t, nodes = model.n_items, at.t, at.nodes
    weighted = w * chunk.freq[:, None]
    shared = chunk.trials.ndim == 1
    k = chunk.trials[:, None] * weighted.sum(axis=0) if shared else chunk.trials.T @ weighted
    first, second = k * t.d_wrong, k * t.dd_wrong
    if model.guessing:
        s = np.asarray(chunk.successes).T @ weighted
        first += s * (t.d_right - t.d_wrong)
        second += s * (t.dd_right - t.dd_wrong)
    elif chunk.successes is None:
        gradient[n] += float(chunk.score @ (weighted @ nodes))
    else:
        gradient[n : 2 * n] += chunk.successes.T @ (weighted @ nodes)
    gradient[:n] += first.sum(axis=1)
    gradient[n : 2 * n] += first @ nodes
    for power in range(3):
        curvature[power] += second @ nodes**power
    if model.free_floor:
        _add_floor(s, k, at, p.c[:, None], gradient[2 * n :], curvature)


def _add_floor(s: Array, k: Array, at: Scores, c: Array, gradient: Array, curvature: Array) -> None:
    """Derivatives by g = logit c: log P has u = c (1 - c) (1 - P*) / P, log Q has -c."""
    u, right = at.floor_right, np.exp(at.t.log_right)
    star = -at.t.d_wrong
    gradient += (s * (u - at.floor_wrong) + k * at.floor_wrong).sum(axis=1)
    cross = -s * c * (1.0 - c) * star * (1.0 - star) / right**2
    curvature[3] += cross.sum(axis=1)
    curvature[4] += cross @ at.nodes
    own = (1.0 - 2.0 * c) * u - u**2
    curvature[5] += (s * own - (k - s) * c * (1.0 - c)).sum(axis=1)


def _add_covariance(model: Model, chunk: Responses, w: Array, at: Scores, hessian: Array, work: Work) -> None:
    """Add sum over respondents of freq Cov[score], the scores written in polynomials of the own posterior."""
    total, root = 0.0, np.sqrt(chunk.freq)[:, None]
    products = len(w) * (hessian.size + PASSES * at.nodes.size * model.n_items)
    for order, basis in enumerate(weighted_polynomials(w, at.nodes)):
        work.add(PRODUCT * products)
        columns = _expansion(model, chunk, basis, at)
        v = np.concatenate(columns, axis=1) * root
        share = float(np.einsum("ij,ij->", v, v))
        hessian += v.T @ v
        total += share
        if order >= 1 and share < SERIES_TOLERANCE * total:
            break


def _add_score_covariance(model: Model, chunk: Responses, w: Array, at: Scores, hessian: Array) -> None:
    """The same where scores are sufficient: the scores by d are shared by all rows, E[x y] - E[x] E[y]."""
    by_d = chunk.trials[:, None] * at.t.d_wrong
    by_a = at.nodes * (chunk.score[:, None] + by_d.sum(axis=0))
    weighted = w * chunk.freq[:, None]
    mean_d, mean_a = w @ by_d.T, np.sum(w * by_a, axis=1)
    weighted_a = weighted * by_a
    hessian[:-1, :-1] += (by_d * weighted.sum(axis=0)) @ by_d.T - (mean_d * chunk.freq[:, None]).T @ mean_d
    cross = by_d @ weighted_a.sum(axis=0) - mean_d.T @ (chunk.freq * mean_a)
    hessian[-1, :-1] += cross
    hessian[:-1, -1] += cross
    hessian[-1, -1] += float(np.sum(weighted_a * by_a)) - float(chunk.freq @ mean_a**2)


def _expansion(model: Model, chunk: Responses, basis: Array, at: Scores) -> list[Array]:
    """Coefficients of the scores by d, a (and logit c) on one polynomial, each (n, n_items) or (n, 1)."""
    t, nodes = at.t, at.nodes
    steep = basis * nodes
    by_d = chunk.trials * (basis @ t.d_wrong.T)
    by_a = chunk.trials * (steep @ t.d_wrong.T)
    s = np.asarray(chunk.successes)
    if model.guessing:
        lift = t.d_right - t.d_wrong
        by_d += s * (basis @ lift.T)
        by_a += s * (steep @ lift.T)
    else:
        by_a += s * steep.sum(axis=1, keepdims=True)
    columns = [by_d, by_a.sum(axis=1, keepdims=True) if model.common_slope else by_a]
    if model.free_floor:
        columns.append(s * (basis @ at.floor_right.T))  # the part of wrong answers is constant in theta
    return columns


def _complete(model: Model, curvature: Array) -> Array:
    """Hessian of the expected complete-data log-likelihood: one small block for each item."""
    dd, da, aa, dg, ag, gg = curvature
    if model.common_slope:
        h = np.diag(np.append(dd, aa.sum()))
        h[-1, :-1] = h[:-1, -1] = da
        return h
    rows = [[dd, da, dg], [da, aa, ag], [dg, ag, gg]]
    order = 3 if model.free_floor else 2
    return np.block([[np.diag(rows[i][j]) for j in range(order)] for i in range(order)])


def _floor_prior(prior: tuple[float, float], c: Array, gradient: Array, hessian: Array | None) -> float:
    """Log density of Beta(prior) on c up to a constant, and its derivatives by logit c, in place."""
    n, (alpha, beta) = c.size, prior
    gradient[2 * n :] += (alpha - 1.0) * (1.0 - c) - (beta - 1.0) * c
    if hessian is not None:
        rows = np.arange(2 * n, 3 * n)
        hessian[rows, rows] -= (alpha + beta - 2.0) * c * (1.0 - c)
    return float(np.sum((alpha - 1.0) * np.log(c) + (beta - 1.0) * np.log1p(-c)))
