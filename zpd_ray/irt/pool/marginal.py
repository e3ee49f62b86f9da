"""The marginal likelihood of the explanatory model and its derivatives, block by block over items.

Item i, respondent j: s_ij of k_ij right, P_j(b) = c_i + (1 - c_i) sigmoid(theta_j - b), b_i ~ N(m_i,
sigma^2), m_i = gamma'(x_i - origin). Parameters phi = (theta, gamma, log sigma). With E_i, Cov_i under the
posterior of b_i on a grid, by Fisher's and Louis's identities (Louis 1982, JRSS B 44(2), 226-233):
    gradient = sum_i E_i[score],   Hessian = sum_i E_i[derivative of score] + Cov_i[score].
Binomial coefficients are left out: k rollouts count as k ordered responses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zpd_ray.irt.pool.blocks import Block, Latent, Posterior, blocks, posterior
from zpd_ray.irt.pool.design import Design
from zpd_ray.irt.quadrature import weighted_polynomials

Array = NDArray[np.float64]

DIRECT = 4  # respondents up to whom covariances of scores are summed pair by pair
SERIES_TOLERANCE = 1e-6  # polynomials adding less than this share of the covariance end the series


@dataclass
class Sums:
    """Log-likelihood, gradient and Hessian accumulated over blocks."""

    value: float
    gradient: Array
    hessian: Array | None


def objective(design: Design, phi: Array, with_hessian: bool) -> tuple[float, Array, Array | None]:
    """Marginal log-likelihood, gradient and (if asked) Hessian at phi = (theta, gamma, log sigma)."""
    latent = Latent.of(phi, design.trials.shape[0])
    sums = Sums(0.0, np.zeros(phi.size), np.zeros((phi.size, phi.size)) if with_hessian else None)
    for block in blocks(design, latent):
        found = posterior(block, latent)
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
    for block in blocks(design, latent):
        found = posterior(block, latent)
        centre = found.weights @ found.nodes
        variance = found.weights @ found.nodes**2 - centre**2
        mean[block.columns], sd[block.columns] = centre, np.sqrt(np.maximum(variance, 0.0))
    return mean, sd
