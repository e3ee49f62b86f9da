"""How well an item matches the model's ability: ZPDScore and its relatives, as plain numpy."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from zpd_ray.irt.quadrature import HERMITE_NODES, HERMITE_WEIGHTS

Floats = NDArray[np.float64]
Criterion = Literal["p(1-p)", "information"]

MAX_SCORE = 0.25  # p(1-p) at p = 1/2, the largest score any item can have
# Logits from the centre at which an item is too hard or too easy to be called in the zone: p of 0.1 and 0.9
# around one half.
ZONE_LOGITS = float(logit(0.9))
FAR = 300.0  # logits: beyond them nothing is left to see; exp(FAR) and its inverse stay finite
CHUNK = 8192  # items: their numbers stay in the processor's cache from node to node


def probability(theta: float | Floats, b: ArrayLike, guess: ArrayLike = 0.0) -> Floats:
    """P(right) = c + (1 - c) sigmoid(theta - b): Rasch (1960), with Birnbaum's (1968) floor c = ``guess``."""
    c = np.asarray(guess, dtype=np.float64)
    return np.asarray(c + (1.0 - c) * expit(theta - np.asarray(b, dtype=np.float64)))


def expected_probability(theta: float, b: Floats, b_sd: float, guess: ArrayLike) -> Floats:
    """``probability`` expected over N(b, b_sd^2), by 21-point Gauss-Hermite quadrature; b, guess: (n,)."""
    return probability_over(theta, b, b_sd * HERMITE_NODES, HERMITE_WEIGHTS, guess)


def probability_over(
    theta: float, b: Floats, nodes: Floats, weights: Floats, guess: ArrayLike = 0.0
) -> Floats:
    """The same over any distribution: of b + node with its weight. nodes, weights: (n_nodes,); (n,)."""
    total = np.zeros(np.shape(b))
    for node, weight in zip(nodes, weights, strict=True):
        total += weight * probability(theta, b + node, guess)
    return total


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


def zpd_score_over(
    theta: float,
    b: Floats,
    weights: Floats,
    guess: Floats,
    target_p: float = 0.5,
    criterion: Criterion = "p(1-p)",
) -> Floats:
    """ZPDScore (``zpd_score``) expected over any distribution of b: nodes b with weights, both (n, n_nodes).

    guess: (n,); returns (n,).
    """
    logits = theta - float(logit(target_p)) - b
    return np.asarray((weights * _value(logits, guess[:, None], criterion)).sum(axis=1))


def _expected(logits: Floats, sd: Floats, c: Floats, criterion: Criterion) -> Floats:
    """The criterion at a logit of N(logits, sd^2)."""
    if not np.any(c):
        return _expected_without_floor(logits, sd)
    total = np.zeros(logits.shape)
    for node, weight in zip(HERMITE_NODES, HERMITE_WEIGHTS, strict=True):
        total += weight * _value(logits - sd * node, c, criterion)
    return total


def _expected_without_floor(logits: Floats, sd: Floats) -> Floats:
    """The same without a floor, to the bit, in place: most of the time of scoring a pool is spent here."""
    total, e, star = np.zeros((3, *logits.shape))
    for node, weight in zip(HERMITE_NODES, HERMITE_WEIGHTS, strict=True):
        np.multiply(sd, node, out=e)
        np.subtract(e, logits, out=e)  # minus the logit
        np.exp(np.clip(e, -FAR, FAR, out=e), out=e)
        np.divide(1.0, np.add(e, 1.0, out=star), out=star)
        e *= star
        e *= star
        e *= weight
        total += e
    return total


def _value(logits: Floats, c: Floats, criterion: Criterion) -> Floats:
    """The criterion at a logit, with one exponential."""
    e = np.exp(np.clip(-logits, -FAR, FAR))
    star = 1.0 / (1.0 + e)
    wrong = e * star
    if not np.any(c):
        return wrong * star
    if criterion == "information":
        return wrong * star * (1.0 - c) * star / (c + (1.0 - c) * star)
    return (c + (1.0 - c) * star) * (1.0 - c) * wrong
