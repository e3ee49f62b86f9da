"""The posterior of b integrated for each item: what the interpolated one is held against."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from zpd_ray.irt.pool.posterior import _moments


def item_posterior(
    theta: float,
    prior_mean: ArrayLike,
    sigma: float,
    successes: ArrayLike,
    trials: ArrayLike,
    guess: ArrayLike = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and sd of b, each (n,), in logits; arguments as of `difficulty_posterior`."""
    m = np.asarray(prior_mean, np.float64)
    columns = [np.broadcast_to(np.asarray(v, np.float64), m.shape) for v in (successes, trials, guess)]
    mean, variance, _ = _moments(theta, m, sigma, *columns)
    return mean, np.sqrt(variance)
