"""Posteriors of many items at once, where they all lie on one smooth curve.

Without guessing and with the same trials for every item, the posterior of b_i is proportional to
    exp(-r_i b) prod_j (1 + exp(theta_j - b))^-k_j  N(b; m_i, sigma^2),   r_i = sum_j s_ij,
and exp(-r b) N(b; m, sigma^2) is N(b; m - r sigma^2, sigma^2) times a constant: everything about an item is a
smooth function of the one number u_i = m_i - r_i sigma^2. The functions are computed exactly on a uniform grid
of u and interpolated by cubics (error about 1e-9); sums over items use the transpose of the interpolation, so
that a pool of any size costs a few passes over memory. With guessing, each pattern of responses has its own
curve in u = m.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zpd_ray.irt import marginal
from zpd_ray.irt.design import Design
from zpd_ray.irt.marginal import Block, Latent, Posterior
from zpd_ray.irt.quadrature import weighted_polynomials

Array = NDArray[np.float64]

STEP = 0.03  # of the grid of u, in sigma
CHUNK = 65_536  # items interpolated at a time
WORTH = 20_000  # items from which a table pays
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


def pays(design: Design) -> bool:
    """Whether all items share one curve and are many enough."""
    return design.row is not None and design.n_items >= WORTH


def tabulate(latent: Latent, low: float, high: float, c: float, successes: Array, trials: Array) -> Table:
    """Posterior of a fictitious item at each u from low to high; successes, trials: (n_respondents,)."""
    step = STEP * latent.sigma
    u = low + step * np.arange(-1.0, np.ceil((high - low) / step) + 3.0)
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
    )
    found = marginal.posterior(block, latent)
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
    assert_row = np.asarray(design.row)
    latent = Latent.of(phi, assert_row.size)
    m = design.covariates @ latent.gamma
    shift = latent.sigma**2
    low = float(m.min()) - shift * float(design.score.max())
    high = float(m.max()) - shift * float(design.score.min())
    table = tabulate(latent, low, high, 0.0, np.zeros(assert_row.size), assert_row)
    weights, items = _collect(design, latent, table, m, with_hessian)
    value = float(weights["1"] @ table.found.log_marginal) + items["constant"]
    value += float(design.totals @ latent.theta)
    gradient = _gradient(design, latent, table, weights, items)
    return value, gradient, _hessian(design, latent, table, weights, items) if with_hessian else None


def _collect(design: Design, latent: Latent, table: Table, m: Array, with_hessian: bool):  # type: ignore
    size, shift, n_x = table.mean.size, latent.sigma**2, latent.gamma.size
    weights = {"1": np.zeros(size), "m": np.zeros(size), "mm": np.zeros(size), "x": np.zeros((size, n_x))}
    items = {"constant": 0.0, "away": np.zeros(n_x), "moment": 0.0, "n": float(design.freq.sum())}
    items |= {"xx": np.zeros((n_x, n_x)), "xvx": np.zeros((n_x, n_x)), "xmv": np.zeros(n_x)}
    mean_of = coefficients(table.mean)
    var_of = coefficients(table.second - table.mean**2)
    plain = bool((design.freq == 1.0).all())
    for start in range(0, m.size, CHUNK):
        part = slice(start, start + CHUNK)
        x, f, r, centre = design.covariates[part], design.freq[part], design.score[part], m[part]
        index, d = place(table, centre - shift * r)
        weights["1"] += spread(index, d, None if plain else f, size)
        mean = evaluate(mean_of, index, d)
        items["constant"] += float(f @ (r * (0.5 * shift * r - centre)))
        items["away"] += x.T @ (f * (mean - centre))
        items["moment"] += float(f @ (centre * (centre - 2.0 * mean)))
        if with_hessian:
            fm = f * centre
            weights["m"] += spread(index, d, fm, size)
            weights["mm"] += spread(index, d, fm * centre, size)
            for column in range(n_x):
                weights["x"][:, column] += spread(index, d, f * x[:, column], size)
            var = evaluate(var_of, index, d)
            items["xx"] += (x * f[:, None]).T @ x
            items["xvx"] += (x * (f * var)[:, None]).T @ x
            items["xmv"] += x.T @ (fm * var)
    return weights, items


def _gradient(design, latent, table, weights, items):  # type: ignore
    n, precision = latent.theta.size, latent.sigma**-2
    gradient = np.empty(n + latent.gamma.size + 1)
    by_node = weights["1"] @ table.found.weights
    gradient[:n] = design.totals + design.row * (table.found.terms.d_wrong @ by_node)
    gradient[n:-1] = precision * items["away"]
    gradient[-1] = precision * (float(weights["1"] @ table.second) + items["moment"]) - items["n"]
    return gradient


def _hessian(design, latent, table, weights, items):  # type: ignore
    n, precision = latent.theta.size, latent.sigma**-2
    t, nodes = table.found.terms, table.found.nodes
    size = n + latent.gamma.size + 1
    h = np.zeros((size, size))
    by_node = weights["1"] @ table.found.weights
    h[np.arange(n), np.arange(n)] = design.row * (t.dd_wrong @ by_node)
    spread_sum = float(weights["1"] @ table.second) + items["moment"]
    h[-1, -1] = -2.0 * precision * spread_sum
    h[n:-1, n:-1] = precision**2 * items["xvx"] - precision * items["xx"]
    h[n:-1, -1] = -2.0 * precision * items["away"] - 2.0 * precision**2 * items["xmv"]
    for order, basis in enumerate(weighted_polynomials(table.found.weights, nodes)):
        theta = design.row * (basis @ t.d_wrong.T)
        first, second = basis @ nodes, basis @ nodes**2
        added = (theta * weights["1"][:, None]).T @ theta
        h[:n, :n] += added
        h[:n, -1] += precision * theta.T @ (weights["1"] * second - 2.0 * weights["m"] * first)
        h[:n, n:-1] += precision * (theta * first[:, None]).T @ weights["x"]
        h[n:-1, -1] += precision**2 * weights["x"].T @ (first * second)
        square = (
            weights["1"] * second**2 - 4.0 * weights["m"] * first * second + 4.0 * weights["mm"] * first**2
        )
        h[-1, -1] += precision**2 * float(square.sum())
        if order >= 2 and np.trace(added) < marginal.SERIES_TOLERANCE * abs(np.trace(h[:n, :n])):
            break
    upper = np.triu(h)
    return upper + np.triu(upper, 1).T


def moments(design: Design, latent: Latent) -> tuple[Array, Array]:
    """Posterior mean and sd of every column's difficulty, each (n_items,), the fastest way there is."""
    if design.row is not None and design.covariates.shape[1] == 0:
        few = design.collapsed()
        mean, sd = marginal.moments(few, latent)
        place_of = np.zeros(int(few.score[-1]) + 1, np.intp)
        place_of[few.score.astype(np.intp)] = np.arange(few.score.size)
        rank = place_of[design.score.astype(np.intp)]
        return mean[rank], sd[rank]
    classes = _classes(design) if design.n_items >= WORTH else None
    if classes is None:
        mean, sd = marginal.moments(design, latent)
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
