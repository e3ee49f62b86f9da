"""Posteriors of many items at once, where they all lie on one smooth curve.

Without guessing and with the same trials for every item, the posterior of b_i is proportional to
    exp(-r_i b) prod_j (1 + exp(theta_j - b))^-k_j  N(b; m_i, sigma^2),   r_i = sum_j s_ij,
and exp(-r b) N(b; m, sigma^2) is N(b; m - r sigma^2, sigma^2) times a constant: everything about an item is a
smooth function of the one number u_i = m_i - r_i sigma^2. The functions are computed exactly on a uniform
grid of u and interpolated by cubics (error about 1e-9); sums over items use the transpose of the
interpolation, so that a pool of any size costs a few passes over memory. With guessing, each pattern of
responses has its own curve in u = m.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zpd_ray.irt.pool import marginal
from zpd_ray.irt.pool.blocks import Block, Latent, Posterior, around, least_sd, posterior
from zpd_ray.irt.pool.design import Design
from zpd_ray.irt.quadrature import STEP_PER_SD, weighted_polynomials

Array = NDArray[np.float64]

STEP = 0.03  # of the grid of u, in sigma
CHUNK = 65_536  # items interpolated at a time
WORTH = 20_000  # items from which a table pays
POINT_COST = 4  # items that cost as much as a point of the table
MAX_CLASSES = 64

# Cubic Lagrange interpolation at d in [0, 1) from the points -1, 0, 1, 2: row p holds the power d^p.
LAGRANGE = np.array(
    [
        [0.0, 1.0, 0.0, 0.0],
        [-1 / 3, -1 / 2, 1.0, -1 / 6],
        [1 / 2, -1.0, 1 / 2, 0.0],
        [-1 / 6, 1 / 2, -1 / 2, 1 / 6],
    ]
)


class Table(NamedTuple):
    """Exact posteriors on a uniform grid of u."""

    start: float
    step: float
    block: Block
    found: Posterior
    mean: Array
    second: Array


def pays(design: Design, latent: Latent) -> bool:
    """Whether all items share one curve and are many more than its table has points."""
    if design.row is None or design.n_items < WORTH:
        return False
    m = design.covariates @ latent.gamma
    reach = float(m.max() - m.min()) + latent.sigma**2 * float(design.score.max() - design.score.min())
    return bool(reach / (STEP * latent.sigma) < design.n_items / POINT_COST)


def tabulate(latent: Latent, low: float, high: float, c: float, successes: Array, trials: Array) -> Table:
    """Posterior of a fictitious item at each u from low to high; successes, trials: (n_respondents,)."""
    step = STEP * latent.sigma
    # two points before `low`: rounding may place the lowest u just under its own point
    u = low + step * np.arange(-2.0, np.ceil((high - low) / step) + 3.0)
    ones = np.ones((u.size, 1))
    block = Block(
        slice(None),
        c,
        ones * successes,
        ones * trials,
        np.zeros((u.size, 0)),
        u,
        ones[:, 0],
        np.zeros(u.size) if c == 0.0 else ones[:, 0] * successes.sum(),
        True,
        around(u, latent.sigma, STEP_PER_SD * least_sd(trials, latent)),
    )
    found = posterior(block, latent)
    return Table(u[0], step, block, found, found.weights @ found.nodes, found.weights @ found.nodes**2)


def place(table: Table, u: Array) -> tuple[NDArray[np.intp], Array]:
    """Index of the grid point before each u, and the distance past it in steps."""
    scaled = (u - table.start) * (1.0 / table.step)
    index = scaled.astype(np.intp)
    scaled -= index
    return index, scaled


def coefficients(values: Array) -> Array:
    """Interpolating cubics (n_points, 4), highest power first, of a function given at the grid points."""
    stencil = np.zeros((values.size, 4))
    stencil[1:-2] = np.stack([values[:-3], values[1:-2], values[2:-1], values[3:]], axis=1)
    return np.ascontiguousarray((stencil @ LAGRANGE.T)[:, ::-1])


def evaluate(cubics: Array, index: NDArray[np.intp], d: Array) -> Array:
    """Interpolate at the places (index, d)."""
    result = cubics[:, 0].take(index)
    for power in range(1, 4):
        result *= d
        result += cubics[:, power].take(index)
    return np.asarray(result)


def spread(index: NDArray[np.intp], d: Array, weight: Array | None, size: int) -> Array:
    """Weights w (size,) with sum_i weight_i f(u_i) = sum_g w_g f(u_g) for every interpolated f."""
    powers = np.empty((size, 4))
    current = weight
    for power in range(4):
        powers[:, power] = np.bincount(index, weights=current, minlength=size)
        current = d if current is None else current * d
    shares = powers @ LAGRANGE
    total = np.zeros(size)
    total += shares[:, 1]
    total[:-1] += shares[1:, 0]
    total[1:] += shares[:-1, 2]
    total[2:] += shares[:-2, 3]
    return total


def objective(design: Design, phi: Array, with_hessian: bool) -> tuple[float, Array, Array | None]:
    """As `marginal.objective`, for designs where `pays` holds."""
    row = np.asarray(design.row)
    latent = Latent.of(phi, row.size)
    m = design.covariates @ latent.gamma
    shift = latent.sigma**2
    low = float(m.min()) - shift * float(design.score.max())
    high = float(m.max()) - shift * float(design.score.min())
    table = tabulate(latent, low, high, 0.0, np.zeros(row.size), row)
    sums = _collect(design, latent, table, m, with_hessian)
    value = float(sums.ones @ table.found.log_marginal) + sums.constant + float(design.totals @ latent.theta)
    hessian = _hessian(row, latent, table, sums) if with_hessian else None
    return value, _gradient(row, design, latent, table, sums), hessian


@dataclass
class Totals:
    """Sums over items. ones, m, mm: (n_points,), x: (n_points, n_covariates), interpolation weights of sums
    of
    f(u_i) times 1, m_i, m_i^2, x_i. constant, moment: of -r m + r^2 sigma^2 / 2 and of m^2 - 2 m E[b]. away:
    of x (E[b] - m). xx, xvx: of x x' and x Var[b] x'. xmv: of x m Var[b].
    """

    ones: Array
    m: Array
    mm: Array
    x: Array
    constant: float
    moment: float
    n: float
    away: Array
    xx: Array
    xvx: Array
    xmv: Array


def _collect(design: Design, latent: Latent, table: Table, m: Array, with_hessian: bool) -> Totals:
    size, shift, n_x = table.mean.size, latent.sigma**2, latent.gamma.size
    sums = Totals(
        np.zeros(size),
        np.zeros(size),
        np.zeros(size),
        np.zeros((size, n_x)),
        0.0,
        0.0,
        float(design.freq.sum()),
        np.zeros(n_x),
        np.zeros((n_x, n_x)),
        np.zeros((n_x, n_x)),
        np.zeros(n_x),
    )
    mean_of = coefficients(table.mean)
    var_of = coefficients(table.second - table.mean**2)
    plain = bool((design.freq == 1.0).all())
    for start in range(0, m.size, CHUNK):
        part = slice(start, start + CHUNK)
        x, f, r, centre = design.covariates[part], design.freq[part], design.score[part], m[part]
        index, d = place(table, centre - shift * r)
        sums.ones += spread(index, d, None if plain else f, size)
        mean = evaluate(mean_of, index, d)
        sums.constant += float(f @ (r * (0.5 * shift * r - centre)))
        sums.away += x.T @ (f * (mean - centre))
        sums.moment += float(f @ (centre * (centre - 2.0 * mean)))
        if with_hessian:
            _collect_second(sums, (x, f, centre), (index, d), evaluate(var_of, index, d))
    return sums


def _collect_second(
    sums: Totals, items: tuple[Array, Array, Array], places: tuple[NDArray[np.intp], Array], var: Array
) -> None:
    x, f, m = items
    fm, size = f * m, sums.ones.size
    sums.m += spread(*places, fm, size)
    sums.mm += spread(*places, fm * m, size)
    for column in range(x.shape[1]):
        sums.x[:, column] += spread(*places, f * x[:, column], size)
    sums.xx += (x * f[:, None]).T @ x
    sums.xvx += (x * (f * var)[:, None]).T @ x
    sums.xmv += x.T @ (fm * var)


def _gradient(row: Array, design: Design, latent: Latent, table: Table, sums: Totals) -> Array:
    precision = latent.sigma**-2
    by_node = sums.ones @ table.found.weights
    theta = design.totals + row * (table.found.terms.d_wrong @ by_node)
    squares = float(sums.ones @ table.second) + sums.moment  # sum of E[(b - m)^2]
    return np.concatenate([theta, precision * sums.away, [precision * squares - sums.n]])


def _hessian(row: Array, latent: Latent, table: Table, sums: Totals) -> Array:
    n, precision = row.size, latent.sigma**-2
    t, nodes = table.found.terms, table.found.nodes
    size = n + latent.gamma.size + 1
    h = np.zeros((size, size))
    h[np.arange(n), np.arange(n)] = row * (t.dd_wrong @ (sums.ones @ table.found.weights))
    h[-1, -1] = -2.0 * precision * (float(sums.ones @ table.second) + sums.moment)
    h[n:-1, n:-1] = precision**2 * sums.xvx - precision * sums.xx
    h[n:-1, -1] = -2.0 * precision * sums.away - 2.0 * precision**2 * sums.xmv
    for order, basis in enumerate(weighted_polynomials(table.found.weights, nodes)):
        # scores on this polynomial: theta, x first / sigma^2, (second - 2 m first) / sigma^2
        theta = row * (basis @ t.d_wrong.T)
        first, second = basis @ nodes, basis @ nodes**2
        added = (theta * sums.ones[:, None]).T @ theta
        h[:n, :n] += added
        h[:n, -1] += precision * theta.T @ (sums.ones * second - 2.0 * sums.m * first)
        h[:n, n:-1] += precision * (theta * first[:, None]).T @ sums.x
        h[n:-1, -1] += precision**2 * sums.x.T @ (first * second)
        square = sums.ones * second**2 - 4.0 * sums.m * first * second + 4.0 * sums.mm * first**2
        h[-1, -1] += precision**2 * float(square.sum())
        if order >= 2 and np.trace(added) < marginal.SERIES_TOLERANCE * abs(np.trace(h[:n, :n])):
            break
    upper = np.triu(h)
    return np.asarray(upper + np.triu(upper, 1).T)


def moments(design: Design, latent: Latent, *, sort: bool = True) -> tuple[Array, Array]:
    """Posterior mean and sd of every column's difficulty, each (n_items,), the fastest way there is.

    sort=False where the items already come in the order of their prior means, or near it.
    """
    if design.row is not None and design.covariates.shape[1] == 0:
        few = design.collapsed()
        mean, sd = marginal.moments(few, latent)
        place_of = np.zeros(int(few.score[-1]) + 1, np.intp)
        place_of[few.score.astype(np.intp)] = np.arange(few.score.size)
        rank = place_of[design.score.astype(np.intp)]
        return mean[rank], sd[rank]
    classes = _classes(design) if design.n_items >= WORTH else None
    if classes is None or (design.row is not None and not pays(design, latent)):
        mean, sd = marginal.moments(design, latent, sort=sort)
    else:
        mean, sd = _interpolated(design, latent, classes)
    return mean, sd


Classes = list[tuple[slice | NDArray[np.intp], float, Array, Array]]


def _classes(design: Design) -> Classes | None:
    """Items by curve: (columns, floor, successes, trials) of each, or None where there are too many."""
    if design.row is not None:
        return [(slice(None), 0.0, np.zeros(design.row.size), design.row)]
    if design.trials.shape[0] != 1:
        return None
    found: Classes = []
    for c, columns in design.floors:
        where = np.arange(design.n_items)[columns]
        k = design.trials[0, where].astype(np.int64)
        s = np.zeros_like(k) if c == 0.0 else design.successes[0, where].astype(np.int64)
        key, inverse = np.unique(k * (int(k.max()) + 1) + s, return_inverse=True)
        if len(found) + key.size > MAX_CLASSES:
            return None
        order = np.argsort(inverse, kind="stable")
        parts = np.split(where[order], np.cumsum(np.bincount(inverse))[:-1])
        for value, part in zip(key.tolist(), parts, strict=True):
            trials, successes = divmod(value, int(k.max()) + 1)
            found.append((part, c, np.array([float(successes)]), np.array([float(trials)])))
    return found


def _interpolated(design: Design, latent: Latent, classes: Classes) -> tuple[Array, Array]:
    mean, sd = np.empty(design.n_items), np.empty(design.n_items)
    m = design.covariates @ latent.gamma
    for columns, c, successes, trials in classes:
        if not trials.any():
            mean[columns], sd[columns] = m[columns], latent.sigma
            continue
        u = m[columns] - (latent.sigma**2 * design.score[columns] if c == 0.0 else 0.0)
        table = tabulate(latent, float(u.min()), float(u.max()), c, successes, trials)
        mean_of = coefficients(table.mean)
        sd_of = coefficients(np.sqrt(np.maximum(table.second - table.mean**2, 0.0)))
        means, sds = np.empty(u.size), np.empty(u.size)
        for start in range(0, u.size, CHUNK):
            part = slice(start, start + CHUNK)
            index, d = place(table, u[part])
            means[part], sds[part] = evaluate(mean_of, index, d), evaluate(sd_of, index, d)
        mean[columns], sd[columns] = means, sds
    return mean, sd
