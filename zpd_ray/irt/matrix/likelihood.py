"""The likelihood of abilities where items are known: its derivatives, and its height at shared points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zpd_ray.irt import models
from zpd_ray.irt.models import terms

Array = NDArray[np.float64]
Pieces = Sequence[tuple[Array, Array, slice | NDArray[np.intp]]]

CELLS = 1 << 20  # respondents times items worked on at a time
CACHED = 1 << 15  # of which so many at once: what is in between stays in the cache
NODES = 64  # of a grid, which takes the place of respondents where they are fewer


@dataclass(frozen=True)
class Items:
    """Responses as weighted successes and trials (n_respondents, n_items), and item parameters (n_items,)."""

    successes: NDArray[Any]
    trials: NDArray[Any]
    freq: Array
    a: Array
    b: Array
    c: Array

    def parts(self, rows: slice) -> list[tuple[Array, Array, slice]]:
        """Successes and failures of some respondents, cut into pieces of at most CELLS."""
        n = self.successes[rows].shape[0]
        size = max(1, CELLS // max(n, NODES))
        cuts = [slice(i, i + size) for i in range(0, self.b.size, size)]
        pieces = []
        for cut in cuts:
            s = self.successes[rows, cut] * self.freq[cut]
            pieces.append((s, self.trials[rows, cut] * self.freq[cut] - s, cut))
        return pieces


def derivatives(
    items: Items, pieces: Pieces, theta: Array, rows: NDArray[np.intp] | None = None
) -> tuple[Array, Array, Array, Array]:
    """Slope and curvature of the log-likelihood, information I, and Warm's J = sum P' P'' / (P Q).

    theta: of every respondent, or of `rows` of them.
    """
    slope, curvature, info, warm = (np.zeros(theta.size) for _ in range(4))
    size = max(1, CACHED // theta.size)
    for successes, failures, all_of_it in pieces:
        for start in range(0, successes.shape[1], size):
            part = slice(start, start + size)
            s, f = successes[:, part], failures[:, part]
            if rows is not None:
                s, f = s[rows], f[rows]
            a, b, c = (values[all_of_it][part] for values in (items.a, items.b, items.c))
            t = terms(a * (theta[:, None] - b), c)
            slope += (s * t.d_right + f * t.d_wrong) @ a
            curvature += (s * t.dd_right + f * t.dd_wrong) @ a**2
            star = -t.d_wrong
            # I = P'^2 / PQ and J = P' P'' / PQ, with P' / P = d_right, P' / Q = P* and P'' = (1 - 2 P*) P'
            each = (s + f) * t.d_right * star
            info += each @ a**2
            warm += (each * (1.0 - 2.0 * star)) @ a**3
    return slope, curvature, info, warm


def log_likelihood(items: Items, pieces: Pieces, points: Array) -> Array:
    """Log-likelihood of every respondent at shared points, (n_respondents, n_points)."""
    total = np.zeros((pieces[0][0].shape[0], points.size))
    for s, f, cut in pieces:
        a, b, c = items.a[cut, None], items.b[cut, None], items.c[cut, None]
        # the products with many respondents take longer than what is out of the cache then
        size = max(min(len(s), NODES), CACHED // max(1, b.size))
        for start in range(0, points.size, size):
            part = slice(start, start + size)
            log_right, log_wrong = _logs(a * (points[part] - b), c)
            total[:, part] += s @ log_right + f @ log_wrong
    return total


def _logs(logit: Array, c: Array) -> tuple[Array, Array]:
    """log P(right), log P(wrong): what `models.terms` has, without the derivatives."""
    e = np.exp(-np.abs(logit))
    log_wrong = -np.maximum(logit, 0.0) - np.log(1.0 + e)
    log_right = logit + log_wrong
    if not c.any():
        return log_right, log_wrong
    star = np.where(logit >= 0.0, 1.0, e) / (1.0 + e)
    guessed = np.log(np.maximum(c + (1.0 - c) * star, np.finfo(float).tiny))
    return np.where(c > 0.0, guessed, log_right), log_wrong + np.log1p(-c)


def information(items: Items, pieces: Pieces, points: Array) -> Array:
    """Information of what every respondent was asked at shared points, (n_respondents, n_points)."""
    total = np.zeros((pieces[0][0].shape[0], points.size))
    for s, f, cut in pieces:
        total += (s + f) @ models.information(points, items.a[cut], items.b[cut], items.c[cut]).T
    return total
