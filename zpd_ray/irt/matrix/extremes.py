"""Finite difficulties for items answered right by all, or wrong by all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zpd_ray.irt.checks import Numbers
from zpd_ray.irt.models import terms
from zpd_ray.irt.quadrature import normalise

if TYPE_CHECKING:
    from zpd_ray.irt.matrix.item_fit import ItemFit

Array = NDArray[np.float64]

SPREAD_MIN = 0.5  # logits; prior sd of b where the other items are too alike to give one
SD_CONDITIONAL = 1.5  # logits; sd of theta where the estimator assumed no distribution (cml)
TINY = 1e-300  # a probability that is no less, for its logarithm


def posterior_of_extremes(
    fitted: ItemFit, s: Numbers, k: Numbers, freq: Array, flags: NDArray[np.str_]
) -> tuple[Array, Array]:
    """Posterior mean and sd of the b of items flagged "all_right" or "all_wrong", in their order.

    The prior of b is normal with the mean and sd of the other items. The likelihood of an item is the product
    over respondents of its probability, averaged over what the other items say of their ability; the
    parameters of those are held at their estimates.
    """
    inner, outer = np.flatnonzero(flags == ""), np.flatnonzero(flags != "")
    weights, nodes, rows = _abilities(fitted, s, k, inner)
    b = fitted.b[inner]
    mean, sd = float(b.mean()), max(float(b.std()), SPREAD_MIN)
    points = np.linspace(mean - 6.0 * sd, mean + 6.0 * sd, 97)
    means, sds = np.empty(outer.size), np.empty(outer.size)
    tried = _unique_columns(k[:, outer], flags[outer])
    for columns, trials in tried:
        item = outer[columns[0]]
        t = terms(fitted.a[item] * (nodes[:, None] - points), fitted.c[item])
        log_p = t.log_right if flags[item] == "all_right" else t.log_wrong
        size = np.bincount(rows, weights=freq * trials, minlength=weights.shape[0])
        log_posterior = (
            size @ np.log(np.maximum(weights @ np.exp(log_p), TINY)) - 0.5 * ((points - mean) / sd) ** 2
        )
        posterior, _ = normalise(log_posterior[None])
        means[columns] = centre = float(posterior[0] @ points)
        sds[columns] = np.sqrt(float(posterior[0] @ (points - centre) ** 2))
    return means, sds


def _unique_columns(k: Numbers, flags: NDArray[np.str_]) -> list[tuple[NDArray[np.intp], Array]]:
    """Items with one flag and the same trials by respondent, and those trials."""
    found = []
    for flag in np.unique(flags):
        columns = np.flatnonzero(flags == flag)
        part = k[:, columns]
        if (part == part[:, :1]).all():
            found.append((columns, part[:, 0].astype(np.float64)))
            continue
        patterns, member = np.unique(part, axis=1, return_inverse=True)
        for index in range(patterns.shape[1]):
            found.append((columns[member.reshape(-1) == index], patterns[:, index].astype(np.float64)))
    return found


def _abilities(
    fitted: ItemFit, s: Numbers, k: Numbers, inner: NDArray[np.intp]
) -> tuple[Array, Array, NDArray[np.intp]]:
    """Posterior weights (n_rows, n_nodes) of abilities by the other items; nodes; row of each respondent."""
    sd = fitted.theta_sd if np.isfinite(fitted.theta_sd) else SD_CONDITIONAL
    a, b, c = (values[inner] for values in (fitted.a, fitted.b, fitted.c))
    nodes = np.linspace(-6.0 * sd, 6.0 * sd, 241)
    if np.ptp(a) == 0.0 and not c.any() and (k == 1).all():  # the raw score is sufficient
        score, rows = np.unique(s[:, inner].sum(axis=1, dtype=np.int64), return_inverse=True)
        places, size = np.unique(b, return_counts=True)
        t = terms(a[0] * (nodes - places[:, None]))
        logs = np.outer(a[0] * score, nodes) + size @ t.log_wrong - 0.5 * (nodes / sd) ** 2
        return normalise(logs)[0], nodes, rows.reshape(-1)
    t = terms(a[:, None] * (nodes - b[:, None]), c[:, None])
    right, tried = np.asarray(s[:, inner], np.float64), np.asarray(k[:, inner], np.float64)
    logs = right @ (t.log_right - t.log_wrong) + tried @ t.log_wrong - 0.5 * (nodes / sd) ** 2
    return normalise(logs)[0], nodes, np.arange(s.shape[0])
