"""Finite difficulties for items answered right by all, or wrong by all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zpd_ray.irt.models import terms
from zpd_ray.irt.quadrature import normalise

if TYPE_CHECKING:
    from zpd_ray.irt.items import ItemFit

Array = NDArray[np.float64]


def posterior_of_extremes(
    fitted: ItemFit, s: NDArray[np.generic], k: NDArray[np.generic], freq: Array, extreme: NDArray[np.bool_]
) -> tuple[Array, Array]:
    """Posterior mean and sd of the extreme items' b, prior normal with the mean and sd of the others' b.

    The likelihood of an item is the product over respondents of its probability averaged over what the other
    items say of their ability; theirs are held at the estimates.
    """
    inner = np.flatnonzero(~extreme)
    weights, nodes = _abilities(fitted, s[:, inner], k[:, inner], inner)
    b = fitted.b[inner]
    mean, sd = float(b.mean()), max(float(b.std()), 0.5)
    points = np.linspace(mean - 8.0 * sd, mean + 8.0 * sd, 161)
    outer = np.flatnonzero(extreme)
    right = s[:, outer[0]] == k[:, outer[0]]
    means, sds = np.empty(outer.size), np.empty(outer.size)
    for sign, columns in ((1, outer[_all_right(s, k, outer)]), (0, outer[~_all_right(s, k, outer)])):
        if not columns.size:
            continue
        a, c = fitted.a[columns[0]], float(fitted.c[columns].mean())
        t = terms(a * (nodes[:, None] - points), c)
        average = np.log(weights @ np.exp(t.log_right if sign else t.log_wrong))
        log_posterior = (freq[:, None] * np.asarray(k[:, columns], np.float64)).T @ average
        log_posterior = log_posterior - 0.5 * ((points - mean) / sd) ** 2
        posterior, _ = normalise(log_posterior)
        where = np.searchsorted(outer, columns)
        means[where] = posterior @ points
        sds[where] = np.sqrt(posterior @ points**2 - means[where] ** 2)
    del right
    return means, sds


def _all_right(s: NDArray[np.generic], k: NDArray[np.generic], columns: NDArray[np.intp]) -> NDArray[np.bool_]:
    return np.asarray((s[:, columns] == k[:, columns]).all(axis=0))


def _abilities(
    fitted: ItemFit, s: NDArray[np.generic], k: NDArray[np.generic], inner: NDArray[np.intp]
) -> tuple[Array, Array]:
    """Posterior weights (n_respondents, n_nodes) of the abilities given the other items."""
    sd = fitted.theta_sd if np.isfinite(fitted.theta_sd) else 1.5
    a, b, c = (values[inner] for values in (fitted.a, fitted.b, fitted.c))
    nodes = np.linspace(-6.0 * sd, 6.0 * sd, 121)
    t = terms(a[:, None] * (nodes - b[:, None]), c[:, None])
    right, tried = np.asarray(s, np.float64), np.asarray(k, np.float64)
    logs = right @ (t.log_right - t.log_wrong) + tried @ t.log_wrong - 0.5 * (nodes / sd) ** 2
    return normalise(logs)[0], nodes
