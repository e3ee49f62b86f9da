"""Posterior means of abilities, and their standard deviations, on grids."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from zpd_ray.irt.matrix.likelihood import (
    CELLS,
    Array,
    Items,
    Pieces,
    derivatives,
    information,
    log_likelihood,
)
from zpd_ray.irt.quadrature import STEP_PER_SD, normalise, uniform_grid

REACH = 7.5  # posterior standard deviations covered on either side
SETTLED = 25.0  # nats, and of a (theta - b): what is less likely by as much has no weight
SCANNED = 33  # points at which the information is looked at, over each span
WIDE = 2000.0  # nodes of one respondent's grid, from which panels that widen outwards take its place
PANEL, PANEL_WEIGHTS = np.polynomial.legendre.leggauss(8)


def expected(items: Items, pieces: Pieces, mode: Array, prior: tuple[float, float]) -> tuple[Array, Array]:
    """Posterior means and sds, each (n_respondents,), in logits. mode: of the posteriors, the same shape.

    prior: mean and sd of a normal one.
    """
    mean, spread = np.empty(mode.size), np.empty(mode.size)
    columns = np.arange(items.b.size)
    for rows, nodes, log_step in _grids(items, pieces, mode, prior):
        own = [_answered(s[rows], f[rows], columns[cut]) for s, f, cut in pieces]
        weights, _ = normalise(
            log_likelihood(items, own, nodes) + log_step - 0.5 * ((nodes - prior[0]) / prior[1]) ** 2
        )
        mean[rows] = weights @ nodes
        middle = float(mean[rows].mean())
        spread[rows] = np.sqrt(np.maximum(weights @ (nodes - middle) ** 2 - (mean[rows] - middle) ** 2, 0.0))
    return mean, spread


def _grids(
    items: Items, pieces: Pieces, mode: Array, prior: tuple[float, float]
) -> list[tuple[NDArray[np.intp], Array, Array]]:
    """Respondents, the nodes for them, and the log of what each node counts for: one grid for all or, where
    posteriors are narrow, one for each; panels for those that reach far beyond their mode.
    """
    _, curvature, _, _ = derivatives(items, pieces, mode)
    sd = 1.0 / np.sqrt(np.maximum(-curvature, 0.0) + prior[1] ** -2)
    step = STEP_PER_SD * _narrowest(items, pieces, mode, sd, prior[1])
    own_nodes = 4.0 * REACH * sd / step
    most = 4.0 * CELLS / mode.size  # of a grid that all share
    low, high = (mode - REACH * prior[1]).min(), (mode + REACH * prior[1]).max()
    if (high - low) / step.min() <= max(200.0, min(float(own_nodes.sum()), most)):
        return [(np.arange(mode.size), *_uniform(low, high, step.min()))]
    far = (own_nodes > WIDE) | _may_be_guessing(items, pieces, mode, sd, prior)
    wide, others = np.flatnonzero(far), np.flatnonzero(~far)
    grids = [(wide, *_panels(items, prior, mode[wide]))] if wide.size else []
    if others.size:
        starts, stops = mode - 2.0 * REACH * sd, mode + 2.0 * REACH * sd
        nodes = (stops[others].max() - starts[others].min()) / step[others].min()
        together = nodes <= min(float(own_nodes[others].sum()), most)
        for rows in [others] if together else others[:, None]:
            grids.append((rows, *_uniform(starts[rows].min(), stops[rows].max(), step[rows].min())))
    return grids


def _may_be_guessing(
    items: Items, pieces: Pieces, mode: Array, sd: Array, prior: tuple[float, float]
) -> NDArray[np.bool_]:
    """Whether a posterior has a flat side, far below the items, that a window about the mode would cut off:
    (n_respondents,). There is one with guessing: the likelihood of nothing else.

    It counts unless prior times likelihood are less than e^-25 of what they are at the mode.
    """
    if not items.c.any():
        return np.zeros(mode.size, bool)
    far = np.array([items.b.min() - SETTLED / min(1.0, items.a.min())])
    top = np.empty(mode.size)
    for some in np.array_split(np.arange(mode.size), -(-mode.size // 8)):  # each at the modes of a few
        own = [(s[some], f[some], cut) for s, f, cut in pieces]
        top[some] = np.diag(log_likelihood(items, own, mode[some]))
    away = log_likelihood(items, pieces, far)[:, 0] - top + 0.5 * ((mode - prior[0]) / prior[1]) ** 2
    return np.asarray(away + np.log(prior[1] / sd) > -SETTLED)


def _answered(s: Array, f: Array, at: NDArray[np.intp]) -> tuple[Array, Array, NDArray[np.intp]]:
    """A piece without the items that none of its respondents was asked."""
    asked = ((s > 0.0) | (f > 0.0)).any(axis=0)
    return s[:, asked], f[:, asked], at[asked]


def _uniform(low: float, high: float, step: float) -> tuple[Array, Array]:
    """Nodes, and the log of what each counts for: all the same."""
    nodes = uniform_grid(low, high, step)
    return nodes, np.zeros(nodes.size)


def _panels(items: Items, prior: tuple[float, float], mode: Array) -> tuple[Array, Array]:
    """Nodes and log weights for responses that only bound theta on one side, under a prior that is far wider.

    The likelihood changes near the items and is constant or zero beyond: panels of about a logit there, each
    half as wide again further out, as far as the prior goes (Gauss-Legendre in each).
    """
    low, high = items.b.min() - 20.0 / items.a.min(), items.b.max() + 20.0 / items.a.min()
    width = max(1.5 / float(items.a.max()), float(high - low) / 200.0)
    inner = np.linspace(low, high, int(np.ceil((high - low) / width)) + 1)
    reach = max(abs(float(mode.min()) - low), abs(float(mode.max()) - high), abs(prior[0]) + high - low)
    outward = [width]
    while sum(outward) < reach + 2.0 * REACH * prior[1]:
        outward.append(1.5 * outward[-1])
    beyond = np.cumsum(outward)
    ends = np.concatenate([low - beyond[::-1], inner, high + beyond])
    half = 0.5 * np.diff(ends)[:, None]
    nodes = 0.5 * (ends[1:] + ends[:-1])[:, None] + half * PANEL
    return nodes.reshape(-1), np.log(half * PANEL_WEIGHTS).reshape(-1)


def _narrowest(items: Items, pieces: Pieces, mode: Array, sd: Array, prior_sd: float) -> Array:
    """Lower bounds of the posterior sds: the most information that a respondent's items give near its mode.

    Looked at are the mode, and of a scan over windows and items what lies in the own window or next to it.
    """
    free = dataclasses.replace(items, c=np.zeros(items.c.size))
    starts, stops = mode - 2.0 * REACH * sd, mode + 2.0 * REACH * sd
    some = np.sort(mode)[:: max(1, mode.size // SCANNED)]
    spans = [(starts.min(), stops.max()), (items.b.min() - 2.0, items.b.max() + 2.0)]
    points = np.unique(np.concatenate([some, *(np.linspace(*span, SCANNED) for span in spans)]))
    info = information(free, pieces, points)
    near = (points[1:] >= starts[:, None]) & (points[:-1] <= stops[:, None])
    most = (near * np.maximum(info[:, 1:], info[:, :-1])).max(axis=1)
    most = np.maximum(most, derivatives(free, pieces, mode)[2])
    return np.asarray(1.0 / np.sqrt(most + prior_sd**-2))
