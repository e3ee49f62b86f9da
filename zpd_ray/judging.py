"""What an item's responses say of it, given the model's ability: difficulty, its uncertainty, ZPDScore."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zpd_ray.irt.pool.posterior import difficulty_posterior
from zpd_ray.irt.pool.residual import Residual, residual_posterior
from zpd_ray.matching import Criterion, zpd_score, zpd_score_over

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

CHUNK = 2048  # items whose posteriors are held at once


class Aim(NamedTuple):
    """What ``matching.zpd_score`` aims at."""

    target_p: float = 0.5
    criterion: Criterion = "p(1-p)"


class Judged(NamedTuple):
    """Posterior mean and sd of b in logits, and the ZPDScore expected under it. Arrays of shape (n,)."""

    b: Floats
    b_sd: Floats
    zpd: Floats


def judge_normal(
    theta: float,
    prior_mean: Floats,
    sigma: float,
    successes: Integers,
    rollouts: Integers,
    guess: Floats,
    aim: Aim,
) -> Judged:
    """With a normal residual of sd ``sigma``; arrays of shape (n,), each item's bits its own."""
    b, b_sd = difficulty_posterior(theta, prior_mean, sigma, successes, rollouts, guess)
    return Judged(b, b_sd, zpd_score(theta, b, b_sd, guess, *aim))


def judge_mixture(
    theta: float,
    prior_mean: Floats,
    residual: Residual,
    successes: Integers,
    rollouts: Integers,
    guess: Floats,
    aim: Aim,
) -> Judged:
    """With a residual on a grid, by sums over its nodes: mean and sd alone would not tell several humps."""
    nodes, found = residual.nodes, Judged(*np.empty((3, prior_mean.size)))
    for start in range(0, prior_mean.size, CHUNK):
        rows = slice(start, start + CHUNK)
        m, c = prior_mean[rows], guess[rows]
        weights = residual_posterior(theta, m, residual, successes[rows], rollouts[rows], c)
        mean = (weights * nodes).sum(axis=1)
        found.b[rows] = m + mean
        found.b_sd[rows] = np.sqrt((weights * (nodes - mean[:, None]) ** 2).sum(axis=1))
        found.zpd[rows] = zpd_score_over(theta, m[:, None] + nodes, weights, c, *aim)
    return found
