"""Linking of two calibrations by common items, and tests for items that drifted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc, ndtr, ndtri  # scipy.stats takes a second to import

from zpd_ray.irt import checks
from zpd_ray.irt.models import probability
from zpd_ray.irt.quadrature import HERMITE_NODES, HERMITE_WEIGHTS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class GroupDrift:
    """Shift of each group's items against the common shift, in logits. Shape (n_groups,) each."""

    group: NDArray[np.generic]
    shift: Array
    se: Array
    z: Array
    p: Array


@dataclass(frozen=True)
class Link:
    """`link`: theta on the reference scale = theta_new - shift, se its standard error.

    z, p: (n_items,) drift of each item against the others; `kept` marks the items that carry the link.
    heterogeneity_p: of the chi-square test that the kept items share one shift.
    """

    shift: float
    se: float
    heterogeneity: float
    heterogeneity_p: float
    z: Array
    p: Array
    kept: NDArray[np.bool_]
    groups: GroupDrift | None


def link(
    b_reference: ArrayLike,
    se_reference: ArrayLike,
    b_new: ArrayLike,
    se_new: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    alpha: float = 0.01,
) -> Link:
    """Shift between two calibrations of the same items, drifting items left out.

    b and se: (n_items,) in logits, the two calibrations independent. The shift is the mean of b_new -
    b_reference weighted by 1 / (se_reference^2 + se_new^2) (mean-mean linking, Kolen & Brennan 2014, Test
    Equating, section 6.3, with weights). Starting from the median, items with a two-sided p below alpha / n
    (Bonferroni) are left out until the set is stable. z compares each item with the shift of the others.
    groups: (n_items,) labels; each group's mean is compared with that of the other groups.
    """
    old = np.asarray(b_reference, np.float64)
    n = old.size
    if old.ndim != 1 or n < 2:
        raise ValueError(f"link needs two common items at least, in vectors; got shape {old.shape}.")
    difference = checks.vector("b_new", b_new, n) - checks.vector("b_reference", old, n)
    variance = checks.vector("se_reference", se_reference, n, low=0.0) ** 2
    variance = variance + checks.vector("se_new", se_new, n, low=0.0) ** 2
    if not (variance > 0.0).all():
        raise ValueError(
            f"item {int(np.argmin(variance))} has no standard error on either scale; give one > 0."
        )
    kept = _kept(difference, variance, alpha)
    weight = kept / variance
    shift = float(weight @ difference / weight.sum())
    # an item in the link is compared with the shift of the others, so its own weight is taken out
    others = weight.sum() - weight
    shift_others = (weight @ difference - weight * difference) / np.maximum(others, 1e-300)
    z = (difference - shift_others) / np.sqrt(variance + 1.0 / np.maximum(others, 1e-300))
    q = float(weight @ (difference - shift) ** 2)
    labels = None if groups is None else np.asarray(groups)
    return Link(
        shift=shift,
        se=float(1.0 / np.sqrt(weight.sum())),
        heterogeneity=q,
        heterogeneity_p=float(chdtrc(max(int(kept.sum()) - 1, 1), q)),
        z=z,
        p=2.0 * ndtr(-np.abs(z)),
        kept=kept,
        groups=None if labels is None else _group_drift(difference, variance, labels),
    )


def _kept(difference: Array, variance: Array, alpha: float) -> NDArray[np.bool_]:
    limit = -float(ndtri(alpha / (2.0 * difference.size)))
    centre, centre_variance = float(np.median(difference)), float(np.median(variance)) * 1.6 / difference.size
    kept = np.ones(difference.size, bool)
    for _ in range(20):
        near = np.abs(difference - centre) <= limit * np.sqrt(variance + centre_variance)
        if near.sum() < 2 or (near == kept).all():
            return near if near.sum() >= 2 else kept
        kept = near
        weight = kept / variance
        centre, centre_variance = float(weight @ difference / weight.sum()), float(1.0 / weight.sum())
    return kept


def _group_drift(difference: Array, variance: Array, labels: NDArray[np.generic]) -> GroupDrift:
    names, member = np.unique(labels, return_inverse=True)
    if labels.shape != difference.shape or names.size < 2:
        raise ValueError(
            f"groups must label the {difference.size} items with two labels at least, got shape "
            f"{labels.shape} with "
            f"{names.size}."
        )
    weight = np.bincount(member, 1.0 / variance)
    total = np.bincount(member, difference / variance)
    shift = total / weight - (total.sum() - total) / (weight.sum() - weight)
    se = np.sqrt(1.0 / weight + 1.0 / (weight.sum() - weight))
    return GroupDrift(names, shift, se, shift / se, 2.0 * ndtr(-np.abs(shift / se)))


@dataclass(frozen=True)
class ResponseDrift:
    """`response_drift`: what was expected of each item, and how far its responses are from it. (n_items,)

    expected: successes; z: residual over its predictive sd, > 0 for fewer successes than expected, a harder
    item; p: two-sided mid-p, on average below its level where trials are few.
    """

    expected: Array
    z: Array
    p: Array
    groups: GroupDrift | None


def response_drift(
    successes: ArrayLike,
    trials: ArrayLike,
    theta: float,
    theta_se: float,
    b_mean: ArrayLike,
    b_sd: ArrayLike,
    guess: ArrayLike | None = None,
    *,
    groups: ArrayLike | None = None,
) -> ResponseDrift:
    """Test items of known difficulty against one respondent's new responses.

    successes, trials: (n_items,). b ~ N(b_mean, b_sd^2) from earlier stages and theta ~ N(theta,
    theta_se^2) are integrated out: the predictive distribution of s is a binomial mixed over theta - b. z
    > 0: fewer successes than expected, a harder item. A group's shift is the one-step estimate of a common
    change of its difficulties (logits), against the other groups.
    """
    s, k = checks.counts(np.atleast_2d(np.asarray(successes)), np.atleast_2d(np.asarray(trials)))
    s, k = s[0].astype(np.float64), k[0].astype(np.float64)
    n = s.size
    mean = checks.vector("b_mean", b_mean, n)
    sd = np.sqrt(checks.vector("b_sd", b_sd, n, low=0.0) ** 2 + float(theta_se) ** 2)
    c = checks.floor(guess, n)[:, None]
    p = probability(0.0, 1.0, mean[:, None] - theta + sd[:, None] * HERMITE_NODES, c)
    average, square = p @ HERMITE_WEIGHTS, p**2 @ HERMITE_WEIGHTS
    expected = k * average
    variance = k * (average - square) + k**2 * (square - average**2)
    z = (expected - s) / np.sqrt(np.maximum(variance, 1e-12))
    tail = _mid_p(s, k, p)
    drift = None
    if groups is not None:
        slope = k * (((p - c) * (1.0 - p) / (1.0 - c)) @ HERMITE_WEIGHTS)
        change, precision = (expected - s) / np.maximum(slope, 1e-12), slope**2 / np.maximum(variance, 1e-12)
        answered = k > 0
        drift = _group_drift(
            change[answered], 1.0 / np.maximum(precision[answered], 1e-12), np.asarray(groups)[answered]
        )
    return ResponseDrift(expected, np.where(k > 0, z, 0.0), tail, drift)


def _mid_p(s: Array, k: Array, p: Array) -> Array:
    """Two-sided mid-p of s under the binomials (n_items, n_nodes) mixed by the Hermite weights."""
    from scipy.stats import binom

    below = binom.cdf(s[:, None] - 1.0, k[:, None], p) @ HERMITE_WEIGHTS
    at = binom.pmf(s[:, None], k[:, None], p) @ HERMITE_WEIGHTS
    lower = below + 0.5 * at
    return np.asarray(np.clip(2.0 * np.minimum(lower, 1.0 - lower), 0.0, 1.0))
