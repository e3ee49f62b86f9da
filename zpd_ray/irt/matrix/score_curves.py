"""The marginal likelihood of the 2PL at a cost that hardly grows with the number of respondents.

With complete responses and no guessing, the posterior of a respondent's ability depends on the responses
through the one number t_n = sum_i a_i s_ni: everything about a respondent is a smooth function of t_n. The
functions are computed on a uniform grid of t and interpolated by polynomials of degree 7 (relative error
about 1e-8); sums over respondents use the transpose of the interpolation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zpd_ray.irt.matrix import mml
from zpd_ray.irt.matrix.mml import Model, Parameters, Responses, Scores

Array = NDArray[np.float64]

STEP = 0.33  # of the grid of t, in units of 1 / (largest posterior sd), which is at most 1
OFFSETS = np.arange(-3.0, 5.0)  # points used, relative to the one below t
CELLS = 1 << 21


def pays(model: Model, data: Responses, phi: Array) -> bool:
    """Whether all respondents share a curve and are clearly more than its points."""
    if model.guessing or data.successes is None or data.trials.ndim != 1:
        return False
    return data.freq.size > 2.0 * _n_points(model.unpack(phi), data)


def _n_points(p: Parameters, data: Responses) -> float:
    return float(np.abs(p.a) @ data.trials) / (STEP / _widest(p, data)) + OFFSETS.size


def _widest(p: Parameters, data: Responses) -> float:
    """About the largest posterior sd: that of the prior, 1, with the information at abilities of +-3."""
    points = np.array([-3.0, 3.0])
    slope = p.a[:, None] * points + p.d[:, None]
    star = 1.0 / (1.0 + np.exp(-slope))
    info = (data.trials * p.a**2) @ (star * (1.0 - star))
    return float(1.0 / np.sqrt(1.0 + info.min()))


def objective(
    model: Model, data: Responses, phi: Array, with_hessian: bool
) -> tuple[float, Array, Array | None]:
    """As `mml.objective`, where `pays` holds."""
    p, s = model.unpack(phi), np.asarray(data.successes)
    t = s @ p.a
    step = STEP / _widest(p, data)
    start = float(t.min()) + OFFSETS[0] * step
    size = int((t.max() - start) / step) + OFFSETS.size + 1
    points = start + step * np.arange(size)
    table = Responses(None, data.trials, np.ones(size), points, data.totals)
    at, w, log_marginal = _tabulate(model, table, phi, p)
    mean, variance = w @ at.nodes, w @ at.nodes**2 - (w @ at.nodes) ** 2
    n = model.n_items
    weight, by_item = np.zeros(size), np.zeros((n, size))
    gradient_a, outer = np.zeros(n), np.zeros((n, n))
    rows = max(1, CELLS // size)
    for first in range(0, t.size, rows):
        part = slice(first, first + rows)
        shares = interpolation((t[part] - start) / step, size)
        shares_f = shares * data.freq[part, None]
        weight += shares_f.sum(axis=0)
        gradient_a += s[part].T @ (shares_f @ mean)
        if with_hessian:
            by_item += s[part].T @ shares_f
            outer += (s[part] * (shares_f @ variance)[:, None]).T @ s[part]
    value = float(weight @ log_marginal) + float(data.totals @ p.d)
    k = data.trials[:, None] * (weight @ w)
    gradient = np.concatenate(
        [data.totals + (k * at.t.d_wrong).sum(axis=1), gradient_a + (k * at.t.d_wrong) @ at.nodes]
    )
    hessian = _hessian(data, (at, w), weight, by_item, outer, k) if with_hessian else None
    if not model.common_slope:
        return value, gradient, hessian
    fold = np.zeros((2 * n, n + 1))
    fold[:n, :n], fold[n:, n] = np.eye(n), 1.0
    return value, fold.T @ gradient, None if hessian is None else fold.T @ hessian @ fold


def _tabulate(model: Model, table: Responses, phi: Array, p: Parameters) -> tuple[Scores, Array, Array]:
    """Posterior weights and log marginal at each t, on nodes wide enough for all."""
    for reach in (6.5, 9.0, 14.0, 25.0):
        at = mml.scores(p, mml.grid(model, phi, table.trials, reach))
        slopes = Parameters(np.ones_like(p.a), p.d, p.c)  # a score here is t itself, slope included
        w, log_marginal = mml.weigh(model, table, slopes, at)
        if max(w[:, 0].max(), w[:, -1].max()) < mml.EDGE_MASS:
            break
    return at, w, log_marginal


def interpolation(place: Array, size: int) -> Array:
    """Lagrange weights (n, size) at `place`, in steps from the first point."""
    below = np.clip(np.floor(place), -OFFSETS[0], size - 1 - OFFSETS[-1]).astype(np.intp)
    d = place - below
    away = d[:, None] - OFFSETS
    weights = np.zeros((place.size, size))
    row = np.arange(place.size)
    for index, offset in enumerate(OFFSETS):
        others = np.delete(OFFSETS, index)
        weights[row, below + int(offset)] = np.prod(np.delete(away, index, axis=1), axis=1) / np.prod(
            offset - others
        )
    return weights


def _hessian(
    data: Responses, table: tuple[Scores, Array], weight: Array, by_item: Array, outer: Array, k: Array
) -> Array:
    """Expected second derivatives plus the covariance of the scores d_i: s - k P, a_i: z (s - k P).

    The part of the scores that varies with z is shared by all respondents but for s z: its covariances are
    summed over the points of t directly, E[x y] - E[x] E[y].
    """
    at, w = table
    t, nodes, n = at.t, at.nodes, at.t.d_wrong.shape[0]
    second = k * t.dd_wrong
    parts = np.concatenate([t.d_wrong, t.d_wrong * nodes]) * np.tile(data.trials, 2)[:, None]
    expected = w @ parts.T
    hessian = (parts * (weight @ w)) @ parts.T - (expected * weight[:, None]).T @ expected
    index = np.arange(n)
    hessian[index, index] += second.sum(axis=1)
    hessian[index, n + index] += second @ nodes
    hessian[n + index, index] += second @ nodes
    hessian[n + index, n + index] += second @ nodes**2
    cross = by_item @ ((w * nodes) @ parts.T - (w @ nodes)[:, None] * expected)
    hessian[n:] += cross
    hessian[:, n:] += cross.T
    hessian[n:, n:] += outer
    return np.asarray(hessian)
