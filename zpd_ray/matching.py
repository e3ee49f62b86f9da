"""How well an item matches the model's ability: ZPDScore and its relatives, as plain numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

Floats = NDArray[np.float64]

MAX_SCORE = 0.25  # p(1-p) at p = 1/2, the largest score any item can have
CHUNK = 8192  # items: their numbers stay in the processor's cache from node to node
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(21)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def probability(theta: float, b: ArrayLike, guess: ArrayLike = 0.0) -> Floats:
    """P(right) = c + (1 - c) sigmoid(theta - b): Rasch (1960), with Birnbaum's (1968) floor c = ``guess``."""
    c = np.asarray(guess, dtype=np.float64)
    return c + (1.0 - c) * expit(theta - np.asarray(b, dtype=np.float64))


def zpd_score(
    theta: float, b: ArrayLike, b_sd: ArrayLike = 0.0, guess: ArrayLike = 0.0, target_p: float = 0.5
) -> Floats:
    """ZPDScore of items of difficulty ``b``, between 0 and 1/4.

    p (1-p) with p = sigmoid(theta - b) (arXiv 2601.10986); with a posterior sd of b, its expectation over
    N(b, b_sd^2) by 21-point Gauss-Hermite quadrature; with a guessing floor, the Fisher information at theta.
    ``target_p`` moves the centre: the score is largest where sigmoid(theta - b) = target_p. b, b_sd, guess:
    shape (n,) or scalar, logits, logits, probability; returns (n,).
    """
    centre = theta - float(logit(target_p))
    b_mean, sd, c = np.broadcast_arrays(np.atleast_1d(b), b_sd, guess)
    score = np.empty(b_mean.shape)
    for start in range(0, b_mean.size, CHUNK):
        rows = slice(start, start + CHUNK)
        score[rows] = _expected_information(centre - b_mean[rows], sd[rows], c[rows])
    return score


def _expected_information(logits: Floats, sd: Floats, c: Floats) -> Floats:
    """Fisher information at a logit of N(logits, sd^2): `irt.information` with one exponential per node."""
    total, guessed = np.zeros(logits.shape), bool(np.any(c))
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        # Beyond 300 nothing is left to see; e and 1 / e stay finite.
        e = np.exp(np.clip(sd * node - logits, -300.0, 300.0))
        star = 1.0 / (1.0 + e)
        information = e * star * star
        if guessed:
            information *= (1.0 - c) * star / (c + (1.0 - c) * star)
        information *= weight
        total += information
    return total
