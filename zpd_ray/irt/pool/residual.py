"""The distribution of the residual of difficulties, by the data: a mixture on a fixed grid.

b = prior mean + e, e one of the grid's nodes with unknown weights: the nonparametric maximum likelihood
estimate of a mixing distribution (Laird 1978, JASA 73, 805-811), with a Dirichlet prior around a base.
The base is Student's t with 5 degrees of freedom and the variance of the normal fit. Few responses an item
cannot tell normal from heavy tails, and the two mistakes are unequal: heavy tails where there are none cost
nothing that was seen, a normal where there are costs a tenth of the selection (docs/irt.md). theta and gamma
stay those of the normal fit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from zpd_ray.irt.pool.counts import Counts

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

BASE_DF = 5.0
CONCENTRATION = 40.0  # items that the base counts for
REACH = 10.0  # logits: further off, no response says more
HALF_NODES, MOST_HALF_NODES = 40, 80  # on each side of 0
STEP = REACH / HALF_NODES  # a residual whose sd is below it has no shape that this grid could hold
STEP_PER_SD = 0.85  # of the narrowest likelihood, 2 / sqrt(trials) logits
EM_STEPS, NEWTON_STEPS = 20, 50
GAIN = 1e-6  # Newton ends where a step would add less to the log posterior


class Residual(NamedTuple):
    """Nodes in logits, ascending, and their probabilities, each (n_nodes,)."""

    nodes: Array
    weights: Array

    @property
    def mean(self) -> float:
        return float(self.weights @ self.nodes)

    @property
    def sd(self) -> float:
        return float(np.sqrt(self.weights @ (self.nodes - self.mean) ** 2))


def fit_residual(
    theta: float,
    prior_mean: Array,
    sigma: float,
    successes: Integers,
    trials: Integers,
    guess: Array,
    freq: Integers,
) -> Residual:
    """The residual of b_i = prior_mean_i + e_i, its mean free, given one respondent's theta (logits).

    prior_mean in logits, successes, trials, guess, freq: (n_cells,), a cell standing for freq items. sigma:
    the residual's sd where it is taken as normal. Cells are merged where they differ by less than the grid
    can tell, so that the cost does not grow with the pool; their order changes no bit.
    """
    nodes = _nodes(sigma, int(trials.max()))
    likelihood, items = _cells(nodes, theta, prior_mean, successes, trials, guess, freq)
    base = _base(nodes, sigma)
    weights = base
    for _ in range(EM_STEPS):  # nearer, where Newton's steps are long
        weights = weights * (likelihood.T @ (items / (likelihood @ weights))) + CONCENTRATION * base
        weights = weights / weights.sum()
    return Residual(nodes, _newton(likelihood, items, base, weights))


def residual_posterior(
    theta: float, prior_mean: Array, residual: Residual, successes: Integers, trials: Integers, guess: Array
) -> Array:
    """Posterior weights of the nodes, (n, n_nodes), the same bits in any block. Arrays of shape (n,).

    An item without trials gets the residual's own weights.
    """
    likelihood = _likelihood(residual.nodes, theta, prior_mean, successes, trials, guess)
    likelihood *= residual.weights
    likelihood /= likelihood.sum(axis=1, keepdims=True)
    return likelihood


def _newton(likelihood: Array, items: Array, base: Array, weights: Array) -> Array:
    """Weights that maximise the log posterior, from a start; EM alone may take thousands of steps.

    In w = weights: sum items log(likelihood w) + prior' log w - total sum(w), concave, whose maximum has sum
    1. Steps are relative to w, so that no weight leaves 0 on the wrong side.
    """
    prior = CONCENTRATION * base
    total = items.sum() + prior.sum()

    def value(w: Array) -> float:
        return float(items @ np.log(likelihood @ w) + prior @ np.log(w) - total * w.sum())

    reached = value(weights)
    for _ in range(NEWTON_STEPS):
        shares = likelihood * weights / (likelihood @ weights)[:, None]
        slope = items @ shares + prior - total * weights
        curvature = (shares * items[:, None]).T @ shares + np.diag(prior)
        step = np.linalg.solve(curvature, slope)
        if slope @ step < GAIN:
            break
        size = min(1.0, 0.9 / max(float(-step.min()), 1e-9))
        while (found := value(weights * (1.0 + size * step))) < reached and size > 1e-6:
            size *= 0.5
        weights, reached = weights * (1.0 + size * step), max(found, reached)
    return weights / weights.sum()


def _nodes(sigma: float, most: int) -> Array:
    reach = max(REACH, 4.0 * sigma)
    resolved = int(np.ceil(reach * np.sqrt(most) / (2.0 * STEP_PER_SD)))
    half = min(max(HALF_NODES, resolved), MOST_HALF_NODES)
    return np.linspace(-reach, reach, 2 * half + 1, dtype=np.float64)


def _base(nodes: Array, sigma: float) -> Array:
    """Probability that Student's t puts nearest to each node; all beyond the grid is its ends'."""
    scale = sigma * np.sqrt((BASE_DF - 2.0) / BASE_DF)
    between = stdtr(BASE_DF, 0.5 * (nodes[1:] + nodes[:-1]) / scale)
    below = np.diff(between, prepend=0.0, append=1.0)
    return 0.5 * (below + below[::-1])  # the upper tail without cancellation


def _cells(
    nodes: Array,
    theta: float,
    prior_mean: Array,
    successes: Integers,
    trials: Integers,
    guess: Array,
    freq: Integers,
) -> tuple[Array, Array]:
    """Likelihood (n_merged, n_nodes) and items (n_merged,) of cells that agree to half a step."""
    width = 0.5 * float(nodes[1] - nodes[0])
    floors, floor = np.unique(guess, return_inverse=True)
    place = np.round(prior_mean / width).astype(np.int64)
    columns = {"place": place, "successes": successes, "trials": trials, "floor": floor.astype(np.int64)}
    merged = Counts.merge([Counts(columns, freq)])
    centre = np.asarray(width * merged["place"], np.float64)
    likelihood = _likelihood(
        nodes, theta, centre, merged["successes"], merged["trials"], floors[merged["floor"]]
    )
    return likelihood, merged.freq.astype(np.float64)


def _likelihood(
    nodes: Array,
    theta: float,
    prior_mean: Array,
    successes: Integers,
    trials: Integers,
    guess: Array,
) -> Array:
    """Of each item at each node, over the item's largest: (n, n_nodes)."""
    logs = np.empty((prior_mean.size, nodes.size))
    for c in np.unique(guess):  # one floor at a time: the bits of an item hang on no other
        rows = np.flatnonzero(guess == c)
        right, wrong = _log_probabilities(theta - prior_mean[rows, None] - nodes, float(c))
        logs[rows] = successes[rows, None] * right + (trials - successes)[rows, None] * wrong
    logs -= logs.max(axis=1, keepdims=True)
    return np.asarray(np.exp(logs, out=logs))


def _log_probabilities(logit: Array, c: float) -> tuple[Array, Array]:
    """Of right and of wrong, with the floor c."""
    small = np.exp(-np.abs(logit))
    wrong = -np.maximum(logit, 0.0) - np.log1p(small)
    if c == 0.0:
        return logit + wrong, wrong
    star = np.where(logit >= 0.0, 1.0, small) / (1.0 + small)
    return np.log(c + (1.0 - c) * star), np.log1p(-c) + wrong
