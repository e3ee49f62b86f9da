"""Response functions: P(right) = c + (1 - c) sigmoid(a (theta - b)), and what follows from it.

Rasch (1960): a = 1, c = 0. 1PL: one a for all items. 2PL and 3PL: Birnbaum (1968), in Lord & Novick,
Statistical Theories of Mental Test Scores, chapters 17-20. The scaling constant D is 1 throughout.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

Array = NDArray[np.float64]

PIECE = 8192  # logits at a time: what is in between stays in the cache


def probability(theta: ArrayLike, a: ArrayLike, b: ArrayLike, c: ArrayLike | None = None) -> Array:
    """P(right), of shape theta.shape + b.shape. theta, b in logits, a > 0, 0 <= c < 1."""
    points = np.asarray(theta, np.float64)
    b = np.asarray(b, np.float64)
    p = expit(np.asarray(a, np.float64) * (points.reshape(points.shape + (1,) * b.ndim) - b))
    return p if c is None else np.asarray(c, np.float64) + (1.0 - np.asarray(c, np.float64)) * p


def information(theta: ArrayLike, a: ArrayLike, b: ArrayLike, c: ArrayLike | None = None) -> Array:
    """Fisher information of one response about theta, of shape theta.shape + b.shape, in logits^-2.

    I = a^2 (q / p) ((p - c) / (1 - c))^2 (Lord 1980, Applications of IRT, eq. 5-9), p = P(right), q = 1 - p;
    a^2 p q without guessing. The information of a test is the sum over the last axis.
    """
    a = np.asarray(a, np.float64)
    star = probability(theta, a, b)
    if c is None:
        return np.asarray(a * a * star * (1.0 - star))
    c = np.asarray(c, np.float64)
    p = c + (1.0 - c) * star
    # Far above theta without guessing, star underflows to 0: so does the information.
    share = np.divide(star, p, out=np.zeros(np.shape(p)), where=p > 0)
    return np.asarray(a * a * (1.0 - c) * (1.0 - star) * star * share)


class Terms(NamedTuple):
    """Log-probabilities of right and wrong, and their first two derivatives by the logit."""

    log_right: Array
    log_wrong: Array
    d_right: Array
    d_wrong: Array
    dd_right: Array
    dd_wrong: Array


class Plain(NamedTuple):
    """Terms without guessing: those of right follow from those of wrong, and are made when asked for."""

    logit: Array
    log_wrong: Array
    d_wrong: Array
    dd_wrong: Array

    @property
    def log_right(self) -> Array:
        return self.logit + self.log_wrong

    @property
    def d_right(self) -> Array:
        return 1.0 + self.d_wrong

    @property
    def dd_right(self) -> Array:
        return self.dd_wrong


def terms(logit: Array, c: ArrayLike = 0.0) -> Terms | Plain:
    """Everything a likelihood needs of a response at `logit` = a (theta - b) with floor `c` (broadcast)."""
    c = np.asarray(c, np.float64)
    if c.ndim or logit.size <= PIECE:
        return _terms(logit, c) if np.any(c) else _plain(logit)
    fields = len(Terms._fields) if c else len(Plain._fields) - 1
    found, flat = np.empty((fields, logit.size)), logit.reshape(-1)
    for start in range(0, logit.size, PIECE):
        part = slice(start, start + PIECE)
        pieces = _terms(flat[part], c) if c else _plain(flat[part])[1:]
        for all_of_it, piece in zip(found, pieces, strict=True):
            all_of_it[part] = piece
    shaped = found.reshape(-1, *logit.shape)
    return Terms(*shaped) if c else Plain(logit, *shaped)


def _plain(logit: Array) -> Plain:
    e = np.exp(-np.abs(logit))
    small = 1.0 / (1.0 + e)
    star = np.where(logit >= 0.0, small, e * small)
    log_wrong = -np.maximum(logit, 0.0) - np.log(1.0 + e)
    return Plain(logit, log_wrong, -star, -(e * small * small))


def _terms(logit: Array, c: Array) -> Terms:
    plain = _plain(logit)
    star, slope = -plain.d_wrong, -plain.dd_wrong
    right = np.maximum(c + (1.0 - c) * star, np.finfo(float).tiny)
    d_right = (1.0 - c) * slope / right
    dd_right = d_right * (1.0 - 2.0 * star) - d_right**2
    log_right = np.log(right)
    if not np.all(
        c
    ):  # items without a floor beside others: far below them P underflows, its logarithm does not
        free = c == 0.0
        log_right = np.where(free, plain.log_right, log_right)
        d_right, dd_right = np.where(free, 1.0 - star, d_right), np.where(free, -slope, dd_right)
    return Terms(log_right, np.log1p(-c) + plain.log_wrong, d_right, plain.d_wrong, dd_right, plain.dd_wrong)
