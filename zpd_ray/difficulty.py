"""From the NLL of a reference response to a difficulty in logits: NLL -> bin -> z -> b.

The logarithm of the mean token NLL is used rather than the NLL itself: with a z-scored NLL and slope one,
p(1-p) comes out almost flat and mastered items get into the zone (docs/decisions.md). Bins make the fit's
input integers that add over blocks in any order with the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

BINS_PER_UNIT = 64  # a bin is 1/64 of a natural-log unit of NLL: 1.6 %
LOG_NLL_RANGE = (-20.0, 6.0)  # 2e-9 to 400 nats per token; an NLL of exactly 0 falls in the first bin
IQR_OF_NORMAL = 1.3489795003921634  # interquartile range of N(0, 1)


@dataclass(frozen=True)
class Scale:
    """Location and scale of log NLL over the pool at stage 0; every later stage keeps them."""

    location: float
    scale: float


def log_nll(nll: ArrayLike) -> Floats:
    """Natural logarithm of the mean token NLL (nats per token), clipped to ``LOG_NLL_RANGE``; any shape."""
    with np.errstate(divide="ignore"):
        return np.clip(np.log(np.asarray(nll, dtype=np.float64)), *LOG_NLL_RANGE)


def bin_of(nll: ArrayLike) -> NDArray[np.int64]:
    """Index of the bin that holds log NLL; same shape as ``nll``, finite values only."""
    return np.floor(log_nll(nll) * BINS_PER_UNIT).astype(np.int64)


def log_nll_of_bin(bins: ArrayLike) -> Floats:
    """Log NLL at the centre of a bin."""
    return (np.asarray(bins, dtype=np.float64) + 0.5) / BINS_PER_UNIT


def robust_scale(bins: ArrayLike, freq: ArrayLike) -> Scale:
    """Median, and interquartile range / 1.349, of binned log NLL.

    bins, freq: integers of shape (n,): a bin and how many items it holds. A pool whose quartiles share a bin
    has no spread to standardise by; its scale is 1.
    """
    order = np.argsort(bins)
    centres = log_nll_of_bin(np.asarray(bins)[order])
    cumulative = np.cumsum(np.asarray(freq)[order])
    at = np.searchsorted(cumulative, np.array([0.25, 0.5, 0.75]) * cumulative[-1])
    lower, median, upper = centres[np.minimum(at, len(centres) - 1)]
    return Scale(float(median), float((upper - lower) / IQR_OF_NORMAL) or 1.0)


def standardise(log_nlls: ArrayLike, scale: Scale) -> Floats:
    """z = (log NLL - location) / scale; any shape."""
    return (np.asarray(log_nlls, dtype=np.float64) - scale.location) / scale.scale


def feedback_difficulty(z: ArrayLike, successes: ArrayLike, rollouts: ArrayLike, strength: float) -> Floats:
    """b = z + lambda (1 - 2 s/k), in logits: the error feedback of the ``feedback`` calibration.

    The paper (arXiv 2601.10986) moves b up after a wrong and down after a right answer without giving the
    formula; this one is ours. An item without rollouts keeps b = z.
    """
    k = np.asarray(rollouts, dtype=np.float64)
    share = np.divide(successes, k, out=np.full(k.shape, 0.5), where=k > 0)
    return np.asarray(z, dtype=np.float64) + strength * (1.0 - 2.0 * share)


def guess_floor(options: ArrayLike) -> Floats:
    """Probability of a right guess, 1 / options; 0 where there are no options. Integers (n,) -> (n,)."""
    n = np.asarray(options, dtype=np.float64)
    return np.divide(1.0, n, out=np.zeros_like(n), where=n > 0)
