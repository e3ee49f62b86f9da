"""The marginal likelihood of the explanatory model and its derivatives, block by block over items.

Item i, respondent j: s_ij of k_ij right, P_j(b) = c_i + (1 - c_i) sigmoid(theta_j - b), b_i ~ N(m_i,
sigma^2), m_i = gamma'(x_i - origin). Parameters phi = (theta, gamma, log sigma). With E_i, Cov_i under the
posterior of b_i on a grid, by Fisher's and Louis's identities (Louis 1982, JRSS B 44(2), 226-233):
    gradient = sum_i E_i[score],   Hessian = sum_i E_i[derivative of score] + Cov_i[score].
Binomial coefficients are left out: k rollouts count as k ordered responses.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from zpd_ray.irt.pool.blocks import Block, Latent, Posterior, blocks, posterior
from zpd_ray.irt.pool.design import Design
from zpd_ray.irt.quadrature import weighted_polynomials
from zpd_ray.irt.work import Work

Array = NDArray[np.float64]

DIRECT = 20  # respondents up to whom covariances of scores are summed pair by pair
AT_ONCE = 4  # polynomials
# About what it takes, in microseconds: a block, a curve at a node and what comes of it, an item at a node, a
# product of two.
CALLS, CURVE, CELL, PRODUCT = 400.0, 0.05, 0.01, 6e-5
SERIES_TOLERANCE = 1e-6  # polynomials adding less than this share of the covariance end the series


@dataclass
class Sums:
    """Log-likelihood, gradient and Hessian accumulated over blocks."""

    value: float
    gradient: Array
    hessian: Array | None


def objective(
    design: Design, phi: Array, with_hessian: bool, work: Work | None = None
) -> tuple[float, Array, Array | None]:
    """Marginal log-likelihood, gradient and (if asked) Hessian at phi = (theta, gamma, log sigma).

    work: what it may take; None: whatever it takes. Raises TooMuchWorkError.
    """
    latent = Latent.of(phi, design.trials.shape[0])
    sums = Sums(0.0, np.zeros(phi.size), np.zeros((phi.size, phi.size)) if with_hessian else None)
    work = work or Work(np.inf)
    work.due = 0.0
    for block in blocks(design, latent, work):
        _add(sums, block, latent, work)
    free = design.free_totals()
    sums.value += float(free @ latent.theta)
    sums.gradient[: latent.theta.size] += free
    return sums.value, sums.gradient, sums.hessian


def _add(sums: Sums, block: Block, latent: Latent, work: Work) -> None:
    """What a block adds: its posteriors, which are large, are gone before those of the next."""
    found = posterior(block, latent)
    each = _takes(block, found)
    work.add(each, each)
    _add_gradient(sums, block, found, latent)
    if sums.hessian is None:
        return
    if latent.theta.size <= DIRECT:
        work.add(each)
        _add_covariance_direct(sums.hessian, block, found, latent)
    else:
        _add_covariance(sums.hessian, block, found, latent, work)


def _takes(block: Block, found: Posterior) -> float:
    """About what posteriors and gradient of a block take, in microseconds."""
    n_items, n_respondents = block.trials.shape
    each = n_respondents * (CURVE + 2.0 * PRODUCT * n_items) + CELL * n_items
    return CALLS + found.nodes.size * each


def _add_gradient(sums: Sums, block: Block, found: Posterior, latent: Latent) -> None:
    n, sigma, freq = latent.theta.size, latent.sigma, block.freq
    weighted = found.weights if block.plain else found.weights * freq[:, None]
    t = found.terms
    trials = block.trials.T @ weighted  # (n_respondents, n_nodes): trials expected at each node
    theta = np.sum(trials * t.d_wrong, axis=1)
    curvature = np.sum(trials * t.dd_wrong, axis=1)
    if block.c != 0.0:
        successes = block.successes.T @ weighted
        theta += np.sum(successes * t.d_lift, axis=1)
        curvature += np.sum(successes * t.dd_lift, axis=1)
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


def _add_covariance(hessian: Array, block: Block, found: Posterior, latent: Latent, work: Work) -> None:
    """Add sum_i freq_i Cov_i[score], the score written in polynomials of the item's own posterior."""
    precision = latent.sigma**-2
    t, nodes = found.terms, found.nodes[None]
    lift = [] if block.c == 0.0 else [t.d_lift]
    curves = np.concatenate([t.d_wrong, *lift, nodes, nodes**2]).T
    root = np.sqrt(block.freq)[:, None]
    polynomials, scores, total = weighted_polynomials(found.weights, found.nodes), [], 0.0
    products = PRODUCT * AT_ONCE * found.weights.size * curves.shape[1]
    products += PRODUCT * AT_ONCE * block.mean.size * hessian.size
    while several := list(islice(polynomials, AT_ONCE)):  # blocks may be small, and products of few rows slow
        work.add(products)
        coefficients = np.concatenate(several) @ curves
        for part in np.split(coefficients, len(several)):
            scores.append(_score(block, part, precision) * root)
        share = float(np.vdot(scores[-1], scores[-1]))
        total += sum(float(np.vdot(score, score)) for score in scores[-len(several) :])
        if share < SERIES_TOLERANCE * total:
            break
    everything = np.concatenate(scores)
    hessian += everything.T @ everything


def _score(block: Block, of_curves: Array, precision: float) -> Array:
    """Scores (n_items, n_parameters), of those of the curves, b and b^2: (n_items, n_curves + 2)."""
    n = block.trials.shape[1]
    theta = block.trials * of_curves[:, :n]
    if block.c != 0.0:
        theta += block.successes * of_curves[:, n : 2 * n]
    first, second = precision * of_curves[:, -2], precision * of_curves[:, -1]
    gamma = block.covariates * first[:, None]
    return np.concatenate([theta, gamma, (second - 2.0 * block.mean * first)[:, None]], axis=1)


def _add_covariance_direct(hessian: Array, block: Block, found: Posterior, latent: Latent) -> None:
    """The same as E[x y] - E[x] E[y], for few respondents: what items share of their scores, the curves at
    the nodes, is taken out of the sums over items.

    No series that must end, so that it is also right where responses cut a wide prior off sharply.
    """
    n, precision, x, freq = latent.theta.size, latent.sigma**-2, block.covariates, block.freq
    middle = 0.5 * float(found.nodes[0] + found.nodes[-1])
    b, m = found.nodes - middle, block.mean - middle
    given, curves = _coefficients(block, found)
    mean = found.weights @ curves.T
    by_b = _by_respondent(given * (found.weights @ (curves * b).T), n)
    by_square = _by_respondent(given * (found.weights @ (curves * b**2).T), n)
    powers = found.weights @ np.stack([b, b**2, b**3, b**4], axis=1)
    first, second = powers[:, 0], powers[:, 1]
    theta = _by_respondent(given * mean, n)
    by_b -= theta * first[:, None]
    by_square -= theta * second[:, None]
    hessian[:n, :n] += _products(block, found) - theta.T @ (theta * freq[:, None])
    # Scores by the prior mean, (b - m) / sigma^2, and by log sigma, (b - m)^2 / sigma^2 less a constant.
    variance = second - first**2
    cross = powers[:, 2] - first * second - 2.0 * m * variance
    fourth = powers[:, 3] - second**2 - 4.0 * m * (cross + m * variance)
    slopes, last = slice(n, hessian.shape[0] - 1), hessian.shape[0] - 1
    theta_gamma = precision * (by_b * freq[:, None]).T @ x
    theta_sigma = precision * freq @ (by_square - 2.0 * m[:, None] * by_b)
    gamma_sigma = precision**2 * x.T @ (freq * cross)
    hessian[:n, slopes] += theta_gamma
    hessian[slopes, :n] += theta_gamma.T
    hessian[:n, last] += theta_sigma
    hessian[last, :n] += theta_sigma
    hessian[slopes, slopes] += precision**2 * (x * (freq * variance)[:, None]).T @ x
    hessian[slopes, last] += gamma_sigma
    hessian[last, slopes] += gamma_sigma
    hessian[last, last] += precision**2 * float(freq @ fourth)


def _coefficients(block: Block, found: Posterior) -> tuple[Array, Array]:
    """Scores by theta as coefficients (n_items, n_curves) of curves (n_curves, n_nodes): trials of the
    derivatives of log wrong, and with a floor successes of those of log right less log wrong.
    """
    t = found.terms
    if block.c == 0.0:
        return block.trials, t.d_wrong
    return np.concatenate([block.trials, block.successes], axis=1), np.concatenate([t.d_wrong, t.d_lift])


def _by_respondent(of_curves: Array, n: int) -> Array:
    """Sums over the curves of each of n respondents, which lie n apart in the last axis."""
    return of_curves if of_curves.shape[-1] == n else of_curves[..., :n] + of_curves[..., n:]


def _products(block: Block, found: Posterior) -> Array:
    """sum_i freq_i E_i[score score'] of the scores by theta: (n_respondents, n_respondents)."""
    weighted = found.weights if block.plain else found.weights * block.freq[:, None]
    given, curves = _coefficients(block, found)
    n = block.trials.shape[1]
    total = np.zeros((curves.shape[0], curves.shape[0]))
    if (block.trials == block.trials[0]).all():  # then only successes differ from item to item
        same, given = block.trials[0][:, None] * curves[:n], given[:, n:]
        total[:n, :n] = (same * weighted.sum(axis=0)) @ same.T
        total[n:, :n] = (given.T @ weighted * curves[n:]) @ same.T
        total[:n, n:] = total[n:, :n].T
        curves = curves[n:]
    place = total.shape[0] - curves.shape[0]
    row, column = np.triu_indices(curves.shape[0])
    pairs = (given[:, row] * given[:, column]).T @ weighted
    pairs *= curves[row]
    pairs *= curves[column]
    sums = pairs.sum(axis=1)
    total[place + row, place + column] = sums
    total[place + column, place + row] = sums
    return _by_respondent(_by_respondent(total, n).T, n)


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
        del found  # large
    return mean, sd
