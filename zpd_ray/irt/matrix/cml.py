"""Conditional maximum likelihood for the Rasch model (Andersen 1972, JRSS B 34(1), 42-54).

Given the raw score r, the probability of a pattern is exp(-sum x_i b_i) / gamma_r(exp(-b)) with gamma_r the
elementary symmetric function: the ability cancels. gamma_r and the conditional moments are computed as a
Poisson-binomial probability by the discrete Fourier transform, after tilting the items by the ability at
which r is the expected score: every sum is then of order one, and no recursion loses digits at any number
of items. Scores that are likely under one tilt share its transform, and the transform needs some thirty
frequencies at any number of items, since the sum of many responses is close to normal: one for each
respondent's items and a few of his neighbours' scores, whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from zpd_ray.irt.newton import Maximum, maximise

Array = NDArray[np.float64]

NEGLIGIBLE = 40.0  # -log of a probability that rounding would lose beside one
COLUMNS = 1024  # of the factors of the Hessian, kept until they are multiplied
NEIGHBOURS = 0.6  # of the reach: scores that may share a tilt
LIKELY = 1e-5  # probability under the tilt of a score that shares it: the digits lost are those of it


@dataclass(frozen=True)
class ScoreGroups:
    """Respondents who answered the same items: columns, counts by raw score 1..n-1, successes by item."""

    columns: NDArray[np.intp]
    counts: Array
    totals: Array


def fit_conditional(s: NDArray[Any], k: NDArray[np.generic], freq: Array) -> tuple[Array, Array, Maximum]:
    """Difficulties summing to 0 (n_items,), their covariance (n_items, n_items), and the maximum found.

    s, k: (n_respondents, n_items) of 0 and 1; no item all right or all wrong. Raises ValueError where fewer
    than two items are left or the comparisons do not tie all items together (then no finite maximum exists).
    """
    n = s.shape[1]
    groups = list(_group(np.asarray(s, np.float64), np.asarray(k, bool), freq))
    if n < 2 or not groups:
        raise ValueError(
            "cml compares items within respondents: two items, right and wrong, are needed at least."
        )
    _tied(np.asarray(s, bool), np.asarray(k, bool))
    # The likelihood does not change where all b move together: a ridge along that direction makes the
    # Hessian regular and moves no step, since gradients sum to zero.
    rough = _rough(s, k, freq)
    curvature = _approximate(groups, rough)
    ridge = float(-np.trace(curvature)) / n**2

    def objective(b: Array, with_hessian: bool) -> tuple[float, Array, Array | None]:
        value, gradient, hessian = conditional(groups, b, with_hessian)
        return value, gradient, None if hessian is None else hessian - ridge

    top = maximise(objective, rough, curvature=curvature - ridge)
    return top.x - top.x.mean(), top.covariance() - 1.0 / (ridge * n**2), top


def _rough(s: NDArray[Any], k: NDArray[np.generic], freq: Array) -> Array:
    """Logits of the items stretched by the spread of the respondents (n_items,), mean 0: PROX (Cohen 1979,
    British Journal of Mathematical and Statistical Psychology 32(1), 113-120)."""
    right, tried = freq @ np.asarray(s, np.float64), freq @ np.asarray(k, np.float64)
    items = np.log((tried - right + 0.5) / (right + 0.5))
    score, possible = np.asarray(s, np.float64).sum(axis=1), np.asarray(k, np.float64).sum(axis=1)
    people = np.log((score + 0.5) / (possible - score + 0.5))
    wide, spread = np.var(items) / 2.89, np.var(people) / 2.89
    stretch = np.sqrt((1.0 + spread) / max(1.0 - wide * spread, 0.5))
    return np.asarray(min(stretch, 2.0) * (items - items.mean()))


def _group(s: Array, k: NDArray[np.bool_], freq: Array) -> Iterator[ScoreGroups]:
    masks, member = np.unique(k, axis=0, return_inverse=True)
    member = member.reshape(-1)
    for index, mask in enumerate(masks):
        rows, columns = np.flatnonzero(member == index), np.flatnonzero(mask)
        part = s[np.ix_(rows, columns)]
        score = part.sum(axis=1).astype(np.intp)
        inner = (score > 0) & (score < columns.size)
        if inner.any():
            counts = np.bincount(score[inner], weights=freq[rows][inner], minlength=columns.size)
            yield ScoreGroups(columns, counts.astype(np.float64), freq[rows][inner] @ part[inner])


def _tied(s: NDArray[np.bool_], k: NDArray[np.bool_]) -> None:
    """Fischer's condition (1981, Psychometrika 46(1), 59-77): wins of items over items connect both ways."""
    from scipy.sparse.csgraph import connected_components

    wins = s.astype(np.float32).T @ (k & ~s).astype(np.float32) > 0
    parts, label = connected_components(wins, directed=True, connection="strong")
    if parts > 1:
        low = np.flatnonzero(label != label[0])
        raise ValueError(
            f"the design is disconnected for cml: items fall into {parts} sets without comparisons both "
            f"ways (item "
            f"{low[0]} against item 0), so their difference is infinite; drop a set, or use estimator='mml'."
        )


def conditional(
    groups: list[ScoreGroups], b: Array, with_hessian: bool = True
) -> tuple[float, Array, Array | None]:
    """Conditional log-likelihood, gradient and (if asked) Hessian by the difficulties b (n_items,)."""
    value, gradient = 0.0, np.zeros(b.size)
    products = _Products(b.size)
    for group in groups:
        own = b[group.columns]
        value -= float(group.totals @ own)
        gradient[group.columns] -= group.totals
        for tilted in tilts(own, np.flatnonzero(group.counts)):
            count = group.counts[tilted.scores]
            value -= float(count @ tilted.log_gamma)
            gradient[group.columns] += tilted.means @ count
            if with_hessian:
                products.add(group.columns, *tilted.covariance(count))
    return value, gradient, -products.total() if with_hessian else None


class _Products:
    """Sum of diag(d) + left @ right.T over groups of items, some hundred columns multiplied at a time."""

    def __init__(self, n: int) -> None:
        self._sum = np.zeros((n, n))
        self._left, self._right = np.zeros((2, n, COLUMNS))
        self._used = 0

    def add(self, rows: NDArray[np.intp], diagonal: Array, left: Array, right: Array) -> None:
        self._sum[rows, rows] += diagonal
        for start in range(0, left.shape[1], COLUMNS):
            part = slice(start, start + COLUMNS)
            self._append(rows, left[:, part], right[:, part])

    def _append(self, rows: NDArray[np.intp], left: Array, right: Array) -> None:
        if self._used + left.shape[1] > COLUMNS:
            self._multiply()
        columns = slice(self._used, self._used + left.shape[1])
        self._left[rows, columns], self._right[rows, columns] = left, right
        self._used = columns.stop

    def _multiply(self) -> None:
        self._sum += self._left @ self._right.T
        self._left[:], self._right[:], self._used = 0.0, 0.0, 0

    def total(self) -> Array:
        if self._used:
            self._multiply()
        return self._sum


def _approximate(groups: list[ScoreGroups], b: Array) -> Array:
    """About the Hessian of `conditional`: independent responses given that their sum is as expected."""
    products = _Products(b.size)
    for group in groups:
        own = b[group.columns]
        scores = np.flatnonzero(group.counts)
        p = expit(np.array([_tilt(own, int(score)) for score in scores])[:, None] - own)
        spread = p * (1.0 - p)
        count = group.counts[scores]
        products.add(
            group.columns, count @ spread, -(spread * (count / spread.sum(axis=1))[:, None]).T, spread.T
        )
    return -products.total()


@dataclass(frozen=True)
class Tilted:
    """Scores that share a tilt: log_gamma (n_scores,), means of the responses given each (n_items, n_scores).

    share (n_items, n_frequencies), weight (n_scores, n_frequencies): the mean is their real product.
    """

    scores: NDArray[np.intp]
    log_gamma: Array
    means: Array
    share: NDArray[np.complex128]
    weight: NDArray[np.complex128]

    def covariance(self, count: Array) -> tuple[Array, Array, Array]:
        """Covariance of the responses given the score, summed over scores with these counts, as (diagonal,
        left, right): diag(diagonal) + left @ right.T."""
        weighted = self.share * (count @ self.weight)
        left = np.concatenate([weighted.real, -weighted.imag], axis=1)
        right = np.concatenate([self.share.real, self.share.imag], axis=1)
        diagonal = self.means @ count - np.einsum("ij,ij->i", left, right)
        means = self.means
        return diagonal, np.append(left, -means * count, axis=1), np.append(right, means, axis=1)


def tilts(b: Array, scores: NDArray[np.intp]) -> Iterator[Tilted]:
    """Scores (ascending, 1..n-1) in bundles, each tilted to the lowest of them."""
    while scores.size:
        theta = _tilt(b, int(scores[0]))
        p = expit(theta - b)
        near = scores[scores - scores[0] <= NEIGHBOURS * _reach(p)]
        found = _transform(b, theta, p, near)
        yield found
        scores = scores[found.scores.size :]


def _reach(p: Array) -> float:
    """Distance of the score from its mean which has probability exp(-NEGLIGIBLE) at most (Bernstein)."""
    third = NEGLIGIBLE / 3.0
    return float(third + np.sqrt(third**2 + 2.0 * NEGLIGIBLE * float(p @ (1.0 - p))))


def _transform(b: Array, theta: float, p: Array, scores: NDArray[np.intp]) -> Tilted:
    """Moments given those of the leading scores that are likely under the tilt.

    With p_i = sigmoid(theta - b_i), gamma_r = P(sum = r) prod (1 + e^(theta - b_i)) e^(-r theta), and P(sum =
    r) is the Fourier coefficient of phi(z) = prod_i (1 - p_i + p_i z), z on the unit circle. Roots of unity
    of order N give the sum of P over r, r +- N, ...: N must only span the scores that have weight, and
    |phi| <= exp(-sum p_i q_i (1 - cos angle)) says which roots count.
    """
    n = b.size
    order = min(n + 1, int((1.0 + NEIGHBOURS) * _reach(p)) + 2)
    half = np.arange(order // 2 + 1)  # the other half are their conjugates
    angle = 2.0 * np.pi * half / order
    kept = float(p @ (1.0 - p)) * (1.0 - np.cos(angle)) <= NEGLIGIBLE
    half, angle = half[kept], angle[kept]
    multiple = np.where((half == 0) | (2 * half == order), 1.0, 2.0) / order
    z = np.exp(1j * angle)
    factors = 1.0 + p[:, None] * (z - 1.0)
    weight = multiple * factors.prod(axis=0) * np.exp(-1j * np.outer(scores, angle))
    probability = weight.real.sum(axis=1)
    likely = max(1, int(np.argmin(np.append(probability > LIKELY, False))))
    scores, probability = scores[:likely], probability[:likely]
    weight = weight[:likely] / probability[:, None]
    share = p[:, None] * z / factors
    means = share.real @ weight.real.T - share.imag @ weight.imag.T
    level = float(np.logaddexp(0.0, theta - b).sum())
    return Tilted(scores, np.log(probability) + level - scores * theta, means, share, weight)


def _tilt(b: Array, score: int) -> float:
    """Ability at which `score` is expected, by safeguarded Newton steps."""
    low, high = float(b.min()) - 40.0, float(b.max()) + 40.0
    theta = float(b.mean() + np.log(score / (b.size - score)))
    for _ in range(60):
        p = expit(theta - b)
        gap = score - float(p.sum())
        if abs(gap) < 1e-9:
            break
        low, high = (theta, high) if gap > 0.0 else (low, theta)
        step = gap / max(float(p @ (1.0 - p)), 1e-12)
        theta = theta + step if low < theta + step < high else 0.5 * (low + high)
    return theta
