"""The marginal likelihood of the explanatory model and its derivatives, block by block over items.

Item i, respondent j: s_ij of k_ij right, P_j(b) = c_i + (1 - c_i) sigmoid(theta_j - b), b_i ~ N(m_i,
sigma^2), m_i = gamma'(x_i - origin). Parameters phi = (theta, gamma, log sigma). With E_i, Cov_i under the
posterior of b_i on a grid, by Fisher's and Louis's identities (Louis 1982, JRSS B 44(2), 226-233):
    gradient = sum_i E_i[score],   Hessian = sum_i E_i[derivative of score] + Cov_i[score].
Binomial coefficients are left out: k rollouts count as k ordered responses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zpd_ray.irt.models import Terms, terms
from zpd_ray.irt.pool.design import Design
from zpd_ray.irt.quadrature import STEP_PER_SD, normalise, uniform_grid, weighted_polynomials

Array = NDArray[np.float64]

BLOCK = 2048  # items worked on at a time: their weights stay in the cache
CELLS = 1 << 21  # weights of a block, where the prior is wide beside its narrowest posterior
SPAN = 2000  # steps between the prior means of a block: items further apart do not share a grid
MAX_CELLS = 1 << 24  # nodes times items and respondents; the step is widened for what would take more
EDGE_MASS = 1e-8  # posterior weight allowed on the first and last node
DIRECT = 4  # respondents up to whom covariances of scores are summed pair by pair
SERIES_TOLERANCE = 1e-6  # polynomials adding less than this share of the covariance end the series


class Latent(NamedTuple):
    """Parameters of the model: theta (n_respondents,), gamma (n_covariates,), sigma."""

    theta: Array
    gamma: Array
    sigma: float

    @classmethod
    def of(cls, phi: Array, n_respondents: int) -> Latent:
        return cls(phi[:n_respondents], phi[n_respondents:-1], float(np.exp(phi[-1])))


class Block(NamedTuple):
    """Some columns of a design, as float64 with items in rows."""

    columns: NDArray[np.intp] | slice
    c: float
    successes: Array
    trials: Array
    covariates: Array
    mean: Array
    freq: Array
    score: Array
    plain: bool  # every freq is 1


class Posterior(NamedTuple):
    """Posterior of the difficulties of a block: weights (n, n_nodes) on nodes, log marginal likelihoods."""

    nodes: Array
    weights: Array
    log_marginal: Array
    terms: Terms


@dataclass
class Sums:
    """Log-likelihood, gradient and Hessian accumulated over blocks."""

    value: float
    gradient: Array
    hessian: Array | None


def blocks(design: Design, latent: Latent, step: float) -> Iterator[Block]:
    """Cut a design into blocks of one guessing floor, BLOCK items at most, and prior means close together."""
    size = int(np.clip(CELLS * step / (14.0 * latent.sigma), 16, BLOCK))
    for c, columns in design.floors:
        count = design.n_items if isinstance(columns, slice) else columns.size
        for start in range(0, count, size):
            stop = min(start + size, count)
            part = slice(start, stop) if isinstance(columns, slice) else columns[start:stop]
            mean = design.covariates[part] @ latent.gamma
            if np.ptp(mean) <= SPAN * step:
                yield _block(design, part, c, mean)
                continue
            at = np.arange(start, stop) if isinstance(part, slice) else part
            place = ((mean - mean.min()) / (SPAN * step)).astype(np.int64)
            for value in np.unique(place):
                near = place == value
                yield _block(design, at[near], c, mean[near])


def _block(design: Design, part: NDArray[np.intp] | slice, c: float, mean: Array) -> Block:
    trials = np.asarray(design.trials[:, part].T, np.float64)
    successes = np.zeros((0, 0)) if c == 0.0 else np.asarray(design.successes[:, part].T, np.float64)
    freq = design.freq[part]
    plain = bool((freq == 1.0).all())
    return Block(part, c, successes, trials, design.covariates[part], mean, freq, design.score[part], plain)


def posterior(block: Block, latent: Latent, step: float) -> Posterior:
    """Posterior weights of each item's difficulty, on a grid that holds all and resolves the narrowest."""
    sigma = latent.sigma
    margin = 7.0
    while True:
        low, high = block.mean.min() - margin * sigma, block.mean.max() + margin * sigma
        most = MAX_CELLS // (min(block.mean.size, BLOCK) + latent.theta.size)
        step = max(step, float(high - low) / most)
        nodes = uniform_grid(low, high, step)
        t = terms(latent.theta[:, None] - nodes, block.c)
        weights, log_sums = normalise(_log_integrand(block, latent, nodes, t))
        if max(weights[:, 0].max(), weights[:, -1].max()) < EDGE_MASS or margin > 1000.0:
            break
        margin *= 1.6
    constant = np.log(step / (sigma * np.sqrt(2.0 * np.pi))) - 0.5 * (block.mean / sigma) ** 2
    return Posterior(nodes, weights, log_sums + constant, t)


def grid_step(trials: Array, latent: Latent) -> float:
    """Step that resolves every posterior of items with at most these trials by respondent: 0.85 of a lower
    bound of the standard deviations, from the prior precision plus the largest information.
    """
    reach = np.linspace(latent.theta.min() - 1.0, latent.theta.max() + 1.0, 9)
    slope = -terms(latent.theta[:, None] - reach).dd_wrong
    return float(STEP_PER_SD / np.sqrt(latent.sigma**-2 + (trials @ slope).max()))


def _log_integrand(block: Block, latent: Latent, nodes: Array, t: Terms) -> Array:
    """Log-likelihood plus log prior by item and node, as one matrix product, without constants by item."""
    precision = latent.sigma**-2
    pull = block.mean * precision
    rows = [t.log_wrong, nodes[None], -0.5 * precision * nodes[None] ** 2]
    if block.c == 0.0:  # log right - log wrong = theta - b, so successes enter by their sum alone
        columns = [block.trials, (pull - block.score)[:, None], np.ones((pull.size, 1))]
    else:
        rows.append(t.log_right - t.log_wrong)
        columns = [block.trials, pull[:, None], np.ones((pull.size, 1)), block.successes]
    return np.concatenate(columns, axis=1) @ np.concatenate(rows, axis=0)


def objective(design: Design, phi: Array, with_hessian: bool) -> tuple[float, Array, Array | None]:
    """Marginal log-likelihood, gradient and (if asked) Hessian at phi = (theta, gamma, log sigma)."""
    latent = Latent.of(phi, design.trials.shape[0])
    sums = Sums(0.0, np.zeros(phi.size), np.zeros((phi.size, phi.size)) if with_hessian else None)
    step = grid_step(design.most, latent)
    for block in blocks(design, latent, step):
        found = posterior(block, latent, step)
        _add_gradient(sums, block, found, latent)
        if sums.hessian is not None:
            add = _add_covariance if latent.theta.size > DIRECT else _add_covariance_direct
            add(sums.hessian, block, found, latent)
    free = design.free_totals()
    sums.value += float(free @ latent.theta)
    sums.gradient[: latent.theta.size] += free
    return sums.value, sums.gradient, sums.hessian


def _add_gradient(sums: Sums, block: Block, found: Posterior, latent: Latent) -> None:
    n, sigma, freq = latent.theta.size, latent.sigma, block.freq
    weighted = found.weights if block.plain else found.weights * freq[:, None]
    t = found.terms
    trials = block.trials.T @ weighted  # (n_respondents, n_nodes): trials expected at each node
    theta = np.sum(trials * t.d_wrong, axis=1)
    curvature = np.sum(trials * t.dd_wrong, axis=1)
    if block.c != 0.0:
        successes = block.successes.T @ weighted
        theta += np.sum(successes * (t.d_right - t.d_wrong), axis=1)
        curvature += np.sum(successes * (t.dd_right - t.dd_wrong), axis=1)
    mean, square = (found.weights @ np.stack([found.nodes, found.nodes**2], axis=1)).T
    spread = square - 2.0 * block.mean * mean + block.mean**2
    away = freq * (mean - block.mean)
    sums.value += float(freq @ found.log_marginal)
    sums.gradient[:n] += theta
    sums.gradient[n:-1] += block.covariates.T @ away / sigma**2
    sums.gradient[-1] += float(freq @ spread) / sigma**2 - float(freq.sum())
    if sums.hessian is None:
        return
    h, x = sums.hessian, block.covariates
    h[np.arange(n), np.arange(n)] += curvature
    h[n:-1, n:-1] -= (x * freq[:, None]).T @ x / sigma**2
    cross = 2.0 * x.T @ away / sigma**2
    h[n:-1, -1] -= cross
    h[-1, n:-1] -= cross
    h[-1, -1] -= 2.0 * float(freq @ spread) / sigma**2


def _add_covariance(hessian: Array, block: Block, found: Posterior, latent: Latent) -> None:
    """Add sum_i freq_i Cov_i[score], the score written in polynomials of the item's own posterior."""
    t, precision = found.terms, latent.sigma**-2
    powers = np.stack([found.nodes, found.nodes**2], axis=1)
    total = 0.0
    for index, basis in enumerate(weighted_polynomials(found.weights, found.nodes)):
        theta = block.trials * (basis @ t.d_wrong.T)
        if block.c != 0.0:
            theta += block.successes * (basis @ (t.d_right - t.d_wrong).T)
        first, second = (basis @ powers).T
        gamma = block.covariates * (precision * first)[:, None]
        log_sigma = precision * (second - 2.0 * block.mean * first)
        score = np.concatenate([theta, gamma, log_sigma[:, None]], axis=1)
        added = score.T @ (score if block.plain else score * block.freq[:, None])
        hessian += added
        share = float(np.trace(added))
        total += share
        if index >= 2 and share < SERIES_TOLERANCE * total:
            break


def _add_covariance_direct(hessian: Array, block: Block, found: Posterior, latent: Latent) -> None:
    """The same as E[x y] - E[x] E[y], for few respondents: products of all scores in one matrix product.

    No series that must end, so that it is also right where responses cut a wide prior off sharply.
    """
    t, n, precision = found.terms, latent.theta.size, latent.sigma**-2
    middle = 0.5 * float(found.nodes[0] + found.nodes[-1])
    b, m = found.nodes - middle, block.mean - middle
    lift = t.d_right - t.d_wrong if block.c != 0.0 else np.zeros((0, b.size))
    scores = np.concatenate([t.d_wrong, lift, b[None], b[None] ** 2])
    row, column = np.triu_indices(scores.shape[0])
    means = found.weights @ scores.T
    pairs = np.empty((m.size, scores.shape[0], scores.shape[0]))
    pairs[:, row, column] = (
        found.weights @ (scores[row] * scores[column]).T - means[:, row] * means[:, column]
    )
    pairs[:, column, row] = pairs[:, row, column]
    # Rows of `given` say how much of each score is in the derivative by theta, m and log sigma.
    given = np.zeros((m.size, n + 2, scores.shape[0]))
    index = np.arange(n)
    given[:, index, index] = block.trials
    if block.c != 0.0:
        given[:, index, n + index] = block.successes
    given[:, n, -2] = precision
    given[:, n + 1, -2], given[:, n + 1, -1] = -2.0 * precision * m, precision
    own = given @ pairs @ given.transpose(0, 2, 1) * block.freq[:, None, None]
    whole = np.r_[0:n, hessian.shape[0] - 1]  # theta and log sigma; those of gamma follow from m's
    part = np.r_[0:n, n + 1]
    hessian[np.ix_(whole, whole)] += own.sum(axis=0)[np.ix_(part, part)]
    slopes, x = slice(n, hessian.shape[0] - 1), block.covariates
    hessian[slopes, slopes] += (x * own[:, n, n][:, None]).T @ x
    cross = x.T @ own[:, n, part]
    hessian[slopes, whole] += cross
    hessian[whole, slopes] += cross.T


def moments(design: Design, latent: Latent, *, sort: bool = True) -> tuple[Array, Array]:
    """Posterior mean and standard deviation of every column's difficulty, each (n_items,)."""
    order = design.order(latent.gamma) if sort else None
    if order is not None:
        inverse = np.argsort(order, kind="stable")
        mean, sd = _moments(design.columns(order), latent)
        return mean[inverse], sd[inverse]
    return _moments(design, latent)


def _moments(design: Design, latent: Latent) -> tuple[Array, Array]:
    mean, sd = np.empty(design.n_items), np.empty(design.n_items)
    step = grid_step(design.most, latent)
    for block in blocks(design, latent, step):
        found = posterior(block, latent, step)
        centre = found.weights @ found.nodes
        variance = found.weights @ found.nodes**2 - centre**2
        mean[block.columns], sd[block.columns] = centre, np.sqrt(np.maximum(variance, 0.0))
    return mean, sd
