"""How well an item matches the model's ability: ZPDScore and its relatives, as plain numpy."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

Floats = NDArray[np.float64]
Criterion = Literal["p(1-p)", "information"]

MAX_SCORE = 0.25  # p(1-p) at p = 1/2, the largest score any item can have
# Logits from the centre at which an item is too hard or too easy to be called in the zone: p of 0.1 and 0.9
# around one half.
ZONE_LOGITS = float(logit(0.9))
CHUNK = 8192  # items: their numbers stay in the processor's cache from node to node
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(21)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def probability(theta: float, b: ArrayLike, guess: ArrayLike = 0.0) -> Floats:
    """P(right) = c + (1 - c) sigmoid(theta - b): Rasch (1960), with Birnbaum's (1968) floor c = ``guess``."""
    c = np.asarray(guess, dtype=np.float64)
    return c + (1.0 - c) * expit(theta - np.asarray(b, dtype=np.float64))


def zone_of(target_p: float) -> tuple[float, float]:
    """The p between which an item is in the zone."""
    centre = float(logit(target_p))
    return float(expit(centre - ZONE_LOGITS)), float(expit(centre + ZONE_LOGITS))


def zpd_score(
    theta: float,
    b: ArrayLike,
    b_sd: ArrayLike = 0.0,
    guess: ArrayLike = 0.0,
    target_p: float = 0.5,
    criterion: Criterion = "p(1-p)",
) -> Floats:
    """ZPDScore of items of difficulty ``b``, between 0 and 1/4.

    p (1-p) with p = c + (1-c) sigmoid(theta - b), c = ``guess`` (arXiv 2601.10986 has no floor); with a
    posterior sd of b, its expectation over N(b, b_sd^2) by 21-point Gauss-Hermite quadrature. criterion
    "information": Fisher information at theta in its place (`irt.information`), the same where c = 0. An item
    far too hard has p = c, and so the score c (1-c), but no information: prefer it where few options make
    guessing easy. ``target_p`` moves the centre by logit(target_p): without a floor the score is largest
    where p = target_p. b, b_sd, guess: shape (n,) or scalar, logits, logits, probability; returns (n,).
    """
    centre = theta - float(logit(target_p))
    b_mean, sd, c = np.broadcast_arrays(np.atleast_1d(b), b_sd, guess)
    score = np.empty(b_mean.shape)
    for start in range(0, b_mean.size, CHUNK):
        rows = slice(start, start + CHUNK)
        score[rows] = _expected(centre - b_mean[rows], sd[rows], c[rows], criterion)
    return score


def _expected(logits: Floats, sd: Floats, c: Floats, criterion: Criterion) -> Floats:
    """The criterion at a logit of N(logits, sd^2), with one exponential per node."""
    total, guessed = np.zeros(logits.shape), bool(np.any(c))
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        # Beyond 300 nothing is left to see; e and 1 / e stay finite.
        e = np.exp(np.clip(sd * node - logits, -300.0, 300.0))
        star = 1.0 / (1.0 + e)
        wrong = e * star
        if not guessed:
            value = wrong * star
        elif criterion == "information":
            value = wrong * star * (1.0 - c) * star / (c + (1.0 - c) * star)
        else:
            value = (c + (1.0 - c) * star) * (1.0 - c) * wrong
        total += weight * value
    return total
