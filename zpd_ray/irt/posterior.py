"""Posterior of one item's difficulty given one respondent, item by item.

`posterior_difficulty` interpolates between the items of a block, which is fast and agrees to 1e-9 but lets
the last digits depend on which items are in the block. Here every operation is elementwise: an item has the
same bits in whatever block it comes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, xlogy

Array = NDArray[np.float64]

NEWTON_STEPS = 16
# Trapezoid on +-12 standard deviations of the mode's curvature: room for skewed posteriors.
NODES = np.arange(-12.0, 12.01, 0.4)
CHUNK = 16_384


def item_posterior(
    theta: float,
    prior_mean: ArrayLike,
    sigma: float,
    successes: ArrayLike,
    trials: ArrayLike,
    guess: ArrayLike = 0.0,
) -> tuple[Array, Array]:
    """Posterior mean and sd of b, each (n,), in logits.

    b ~ N(prior_mean, sigma^2), successes | b ~ Binomial(trials, c + (1 - c) sigmoid(theta - b)), c = `guess`.
    prior_mean, successes, trials: (n,); trials = 0 gives the prior. Quadrature around the mode, scaled to
    the curvature there (Naylor & Smith 1982, Applied Statistics 31(3)).
    """
    m = np.asarray(prior_mean, np.float64)
    columns = [np.broadcast_to(np.asarray(v, np.float64), m.shape) for v in (successes, trials, guess)]
    mean, sd = np.empty(m.shape), np.empty(m.shape)
    for start in range(0, m.size, CHUNK):
        rows = slice(start, start + CHUNK)
        mean[rows], sd[rows] = _moments(theta, m[rows], sigma, *(column[rows] for column in columns))
    return mean, sd


def _moments(theta: float, m: Array, sigma: float, s: Array, k: Array, c: Array) -> tuple[Array, Array]:
    centre, scale = _mode(theta, m, sigma, s, k)
    # With guessing the posterior may reach from the mode without guessing back to the prior: span both.
    span = (0.5 * np.abs(centre - m) + 6.0 * sigma) / NODES[-1]
    centre, scale = (
        np.where(c > 0, 0.5 * (centre + m), centre),
        np.where(c > 0, np.maximum(scale, span), scale),
    )
    points = [centre + scale * node for node in NODES]
    logs = [_log_density(theta, b, m, sigma, s, k, c) for b in points]
    top = np.maximum.reduce(logs)
    total, first, second = np.zeros(m.shape), np.zeros(m.shape), np.zeros(m.shape)
    for node, log in zip(NODES, logs, strict=True):
        weight = np.exp(log - top)
        total += weight
        first += weight * node
        second += weight * node * node
    first /= total
    return centre + scale * first, scale * np.sqrt(second / total - first * first)


def _mode(theta: float, m: Array, sigma: float, s: Array, k: Array) -> tuple[Array, Array]:
    """Mode and curvature scale without guessing, where the log posterior is concave."""
    low, high = m - sigma**2 * s, m + sigma**2 * (k - s)
    b = 0.5 * (low + high)
    for _ in range(NEWTON_STEPS):
        q = expit(theta - b)
        slope = -(b - m) / sigma**2 - s + k * q
        low, high = np.where(slope > 0, b, low), np.where(slope < 0, b, high)
        b = b + slope / (1.0 / sigma**2 + k * q * (1.0 - q))
        b = np.where((b > low) & (b < high), b, 0.5 * (low + high))  # a step outside the bracket bisects it
    q = expit(theta - b)
    return b, 1.0 / np.sqrt(1.0 / sigma**2 + k * q * (1.0 - q))


def _log_density(theta: float, b: Array, m: Array, sigma: float, s: Array, k: Array, c: Array) -> Array:
    p = c + (1.0 - c) * expit(theta - b)
    # 1 - p from the other tail, which does not cancel where p is close to 1.
    wrong = (1.0 - c) * expit(b - theta)
    return xlogy(s, p) + xlogy(k - s, wrong) - 0.5 * ((b - m) / sigma) ** 2
