"""Conditional maximum likelihood for the Rasch model (Andersen 1972, JRSS B 34(1), 42-54).

Given the raw score r, the probability of a pattern is exp(-sum x_i b_i) / gamma_r(exp(-b)) with gamma_r the
elementary symmetric function: the ability cancels. gamma_r and the conditional moments are computed as a
Poisson-binomial probability by the discrete Fourier transform, after tilting the items by the ability at
which r is the expected score: every sum is then of order one, and no recursion loses digits at any number
of items.
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
    # Contrasts of the items: b = basis @ free sums to zero and the likelihood has a strict maximum in `free`.
    basis = np.linalg.qr(np.column_stack([np.ones(n), np.eye(n)[:, : n - 1]]))[0][:, 1:]

    def objective(free: Array, with_hessian: bool) -> tuple[float, Array, Array | None]:
        value, gradient, hessian = conditional(groups, basis @ free)
        return value, basis.T @ gradient, basis.T @ hessian @ basis

    wrong = freq @ (np.asarray(k, np.float64) - s)
    rough = np.log((wrong + 0.5) / (freq @ np.asarray(s, np.float64) + 0.5))
    top = maximise(objective, basis.T @ rough)
    return basis @ top.x, basis @ top.covariance() @ basis.T, top


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


def conditional(groups: list[ScoreGroups], b: Array) -> tuple[float, Array, Array]:
    """Conditional log-likelihood, gradient and Hessian by the difficulties b (n_items,)."""
    value, gradient, hessian = 0.0, np.zeros(b.size), np.zeros((b.size, b.size))
    for group in groups:
        own = b[group.columns]
        value -= float(group.totals @ own)
        gradient[group.columns] -= group.totals
        for score in np.flatnonzero(group.counts):
            count = group.counts[score]
            log_gamma, mean, covariance = given_score(own, int(score))
            value -= float(count * log_gamma)
            gradient[group.columns] += count * mean
            hessian[np.ix_(group.columns, group.columns)] -= count * covariance
    return value, gradient, hessian


def given_score(b: Array, score: int) -> tuple[float, Array, Array]:
    """log gamma_score(exp(-b)), and mean (n,) and covariance (n, n) of the responses given the raw score.

    With p_i = sigmoid(theta - b_i) and sum p_i = score, gamma_r = P(sum = r) prod (1 + e^(theta - b_i)) e^(-r
    theta), and P(sum = r) is the Fourier coefficient of prod_i (1 - p_i + p_i z), z on the unit circle.
    """
    theta = _tilt(b, score)
    p = expit(theta - b)
    n = b.size
    # Half of the n + 1 roots of unity: the other half are their conjugates.
    half = np.arange((n + 1) // 2 + 1)
    angle = 2.0 * np.pi * half / (n + 1)
    multiple = np.where((half == 0) | (2 * half == n + 1), 1.0, 2.0) * (half <= (n + 1) / 2) / (n + 1)
    z = np.exp(1j * angle)
    factors = 1.0 + p[:, None] * (z - 1.0)
    logs = np.log(factors).sum(axis=0)
    weight = multiple * np.exp(logs - 1j * angle * score)
    probability = float(weight.real.sum())
    share = p[:, None] * z / factors
    mean = (share @ weight).real / probability
    weighted = share * weight
    joint = (weighted.real @ share.real.T - weighted.imag @ share.imag.T) / probability
    np.fill_diagonal(joint, mean)
    log_gamma = np.log(probability) + float(np.logaddexp(0.0, theta - b).sum()) - score * theta
    return log_gamma, mean, joint - np.outer(mean, mean)


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
