"""Blocks of items that share a grid over difficulty, each as narrow and as coarse as their posteriors allow.

Many responses make posteriors far narrower than the prior, and a grid over the whole prior is then empty
nearly everywhere for every item. On a coarse grid, whose cells are bounded by the curvature of the log
posterior, it is seen which part of it holds each item's posterior and how fine a step that part needs (the
idea of adaptive quadrature, Naylor & Smith 1982, Applied Statistics 31(3), with a window in place of a mode,
so that posteriors of two humps or with a flat side are held as well). Items are then cut into blocks whose
windows lie together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zpd_ray.irt.models import Plain, Terms, terms
from zpd_ray.irt.pool.design import Columns, Design
from zpd_ray.irt.quadrature import STEP_PER_SD, normalise, uniform_grid
from zpd_ray.irt.work import Work

Array = NDArray[np.float64]
Index = NDArray[np.intp]

BLOCK = 2048  # items worked on at a time: their weights stay in the cache
CELLS = 1 << 21  # weights of a block, where the prior is wide beside its narrowest posterior
SPAN = 2000  # steps between the prior means of a block: items further apart do not share a grid
MAX_CELLS = 1 << 23  # nodes times items and respondents; the step is widened for what would take more
EDGE_MASS = 1e-8  # posterior weight allowed on the first and last node
MARGIN = 7.0  # prior standard deviations that a grid reaches at first beyond the prior means
WIDER, MOST_WIDENED = 0.3, 12  # share of its length that a grid grows by at each end, and how often
COARSE, COARSEST = 8.0, 0.5  # step to look for windows: in sd of the narrowest posterior, and in logits
WORTH = 3.0  # times the grid's step that the coarse one must be for windows to be looked for
OUTSIDE = 21.0  # log density below the highest that is left out: a share of 1e-9
# About what it takes, in microseconds: one block more, a cell (item and node), a cell for each respondent, a
# curve at a node.
CALLS, CELL, CELL_EACH, CURVE = 300.0, 0.03, 0.0015, 0.025
LOOK, LOOK_CELL = 0.04, 0.045  # the same for a curve at a node of the coarse grid, and for an item at it
LEAST = 8  # items of a block that is cut no further
LOOKED = 64  # points at which the information is looked at, about
EMPTY = np.zeros((0, 0))


class Latent(NamedTuple):
    """Parameters of the model: theta (n_respondents,), gamma (n_covariates,), sigma."""

    theta: Array
    gamma: Array
    sigma: float

    @classmethod
    def of(cls, phi: Array, n_respondents: int) -> Latent:
        return cls(phi[:n_respondents], phi[n_respondents:-1], float(np.exp(phi[-1])))


class Grid(NamedTuple):
    """Nodes from low to high, a step apart, in logits."""

    low: float
    high: float
    step: float


class Block(NamedTuple):
    """Some columns of a design, as float64 with items in rows, and the grid that they are integrated on."""

    columns: Columns
    c: float
    successes: Array
    trials: Array
    covariates: Array
    mean: Array
    freq: Array
    score: Array
    plain: bool  # every freq is 1
    grid: Grid

    def rows(self, part: Index, grid: Grid) -> Block:
        """Some of the items, on another grid."""
        columns = part + self.columns.start if isinstance(self.columns, slice) else self.columns[part]
        successes = self.successes if self.c == 0.0 else self.successes[part]
        return Block(
            columns,
            self.c,
            successes,
            self.trials[part],
            self.covariates[part],
            self.mean[part],
            self.freq[part],
            self.score[part],
            self.plain,
            grid,
        )


class Derivatives(NamedTuple):
    """As of `models.Terms`; lift: of right less wrong, empty without guessing, where that is constant."""

    d_wrong: Array
    dd_wrong: Array
    d_lift: Array
    dd_lift: Array

    @classmethod
    def of(cls, t: Terms | Plain) -> Derivatives:
        """In the place of what is not needed any more, since these arrays are the largest there are."""
        if isinstance(t, Plain):
            return cls(t.d_wrong, t.dd_wrong, EMPTY, EMPTY)
        lift, second = np.subtract(t.d_right, t.d_wrong, out=t.d_right), t.dd_right
        return cls(t.d_wrong, t.dd_wrong, lift, np.subtract(second, t.dd_wrong, out=second))


class Posterior(NamedTuple):
    """Posterior of the difficulties of a block: weights (n, n_nodes) on nodes, log marginal likelihoods, and
    derivatives by theta at the nodes, (n_respondents, n_nodes).
    """

    nodes: Array
    weights: Array
    log_marginal: Array
    terms: Derivatives


def blocks(design: Design, latent: Latent, work: Work | None = None) -> Iterator[Block]:
    """Cut a design into blocks of one guessing floor whose posteriors lie close together.

    work: what looking for posteriors may take; None: whatever it takes. Raises TooMuchWorkError.
    """
    work = work or Work(np.inf)
    work.add(CALLS + CURVE * latent.theta.size * LOOKED)
    narrowest = least_sd(design.most, latent)
    step = STEP_PER_SD * narrowest
    coarse = min(COARSE * narrowest, COARSEST)
    for block in _by_prior(design, latent, step):
        little = _cost(block.mean.size, block.grid, latent.theta.size) < 3.0 * CALLS
        if little or coarse < WORTH * step:
            yield block
        else:
            yield from _by_posterior(block, latent, coarse, work)


def _cost(n_items: int, grid: Grid, n_respondents: int) -> float:
    cell = CELL + CELL_EACH * n_respondents
    return CALLS + (cell * n_items + CURVE * n_respondents) * (grid.high - grid.low) / grid.step


def least_sd(trials: Array, latent: Latent) -> float:
    """A lower bound of the posterior sd of items with at most these trials by respondent: from the prior
    precision plus the largest information.
    """
    low, high = latent.theta.min() - 1.0, latent.theta.max() + 1.0
    reach = np.linspace(low, high, int(np.clip(2.0 * (high - low), 9, 129)))
    # sigmoid (1 - sigmoid): -dd_wrong of `terms`, without the rest of it
    far = np.exp(-np.abs(latent.theta[:, None] - reach))
    return float(1.0 / np.sqrt(latent.sigma**-2 + (trials @ (far / (1.0 + far) ** 2)).max()))


def around(mean: Array, sigma: float, step: float) -> Grid:
    """A grid that holds the priors of items with these means."""
    return Grid(float(mean.min() - MARGIN * sigma), float(mean.max() + MARGIN * sigma), step)


def posterior(block: Block, latent: Latent) -> Posterior:
    """Posterior weights of each item's difficulty, on the block's grid, widened until it holds all."""
    low, high, step = block.grid
    most = MAX_CELLS // (min(block.mean.size, BLOCK) + latent.theta.size)
    found, widened = None, 0
    while found is None:
        step = max(step, (high - low) / most)
        found = _on(block, latent, Grid(low, high, step), widened == MOST_WIDENED)
        low, high = low - WIDER * (high - low), high + WIDER * (high - low)
        widened += 1
    return found


def _on(block: Block, latent: Latent, grid: Grid, last: bool) -> Posterior | None:
    """On this grid; None, and its large arrays gone, where it does not hold all and is not the last one."""
    nodes = uniform_grid(*grid)
    t = terms(latent.theta[:, None] - nodes, block.c)
    weights, log_sums = normalise(log_integrand(block, latent, nodes, t))
    if not last and max(weights[:, 0].max(), weights[:, -1].max()) >= EDGE_MASS:
        return None
    sigma = latent.sigma
    constant = np.log(grid.step / (sigma * np.sqrt(2.0 * np.pi))) - 0.5 * (block.mean / sigma) ** 2
    return Posterior(nodes, weights, log_sums + constant, Derivatives.of(t))


def log_integrand(block: Block, latent: Latent, nodes: Array, t: Terms | Plain) -> Array:
    """Log-likelihood plus log prior by item and node, as one matrix product, without constants by item."""
    precision = latent.sigma**-2
    pull = block.mean * precision
    rows = [t.log_wrong, nodes[None], -0.5 * precision * nodes[None] ** 2]
    if block.c == 0.0:  # log right - log wrong = theta - b, so successes enter by their sum alone
        columns = [block.trials, (pull - block.score)[:, None], np.ones((pull.size, 1))]
    else:
        rows.append(t.log_right - t.log_wrong)
        columns = [block.trials, pull[:, None], np.ones((pull.size, 1)), block.successes]
    return np.concatenate(columns, axis=1) @ np.concatenate(rows, axis=0)


def _by_prior(design: Design, latent: Latent, step: float) -> Iterator[Block]:
    """Blocks of one guessing floor, BLOCK items at most, and prior means close together."""
    size = int(np.clip(CELLS * step / (2.0 * MARGIN * latent.sigma), 16, BLOCK))
    for c, columns in design.floors:
        count = design.n_items if isinstance(columns, slice) else columns.size
        for start in range(0, count, size):
            stop = min(start + size, count)
            part = slice(start, stop) if isinstance(columns, slice) else columns[start:stop]
            mean = design.covariates[part] @ latent.gamma
            if np.ptp(mean) <= SPAN * step:
                yield _block(design, part, c, mean, around(mean, latent.sigma, step))
                continue
            at = np.arange(start, stop) if isinstance(part, slice) else part
            place = ((mean - mean.min()) / (SPAN * step)).astype(np.int64)
            for value in np.unique(place):
                near = place == value
                yield _block(design, at[near], c, mean[near], around(mean[near], latent.sigma, step))


def _block(design: Design, part: Columns, c: float, mean: Array, grid: Grid) -> Block:
    trials = np.asarray(design.trials[:, part].T, np.float64)
    successes = np.zeros((0, 0)) if c == 0.0 else np.asarray(design.successes[:, part].T, np.float64)
    freq = design.freq[part]
    plain = bool((freq == 1.0).all())
    return Block(
        part, c, successes, trials, design.covariates[part], mean, freq, design.score[part], plain, grid
    )


class _Windows(NamedTuple):
    """Where each item's posterior lies, and the step that resolves it there: (n,), logits."""

    low: Array
    high: Array
    step: Array

    def grid(self, part: Index) -> Grid:
        """What holds and resolves some of the items."""
        return Grid(float(self.low[part].min()), float(self.high[part].max()), float(self.step[part].min()))


def _by_posterior(block: Block, latent: Latent, coarse: float, work: Work) -> Iterator[Block]:
    windows = _windows(block, latent, coarse, work)
    for part in _cut(windows, latent.theta.size):
        grid = windows.grid(part)
        size = int(np.clip(CELLS * grid.step / (grid.high - grid.low), LEAST, BLOCK))
        for start in range(0, part.size, size):
            yield block.rows(part[start : start + size], grid)


def _windows(block: Block, latent: Latent, coarse: float, work: Work) -> _Windows:
    """From log densities on a coarse grid. In a cell they exceed those at its ends by h^2 / 8 times the
    curvature at most, and that of a response changes by less than a factor e in a logit.

    What lies e^-t below the top may be resolved worse by as much: the error of a step h where the curvature
    is v is of the order of exp(-t - 2 pi^2 / (v h^2)), the bound of `quadrature` for a part of the density.
    """
    low, high, _ = around(block.mean, latent.sigma, coarse)
    for _ in range(MOST_WIDENED):
        coarse = max(coarse, (high - low) * block.mean.size / MAX_CELLS)
        nodes = uniform_grid(low, high, coarse)
        work.add(nodes.size * (LOOK * latent.theta.size + LOOK_CELL * block.mean.size))
        t = terms(latent.theta[:, None] - nodes, block.c)
        below = log_integrand(block, latent, nodes, t)
        np.subtract(below.max(axis=1, keepdims=True), below, out=below)
        alike = bool((block.trials == block.trials[0]).all())
        curvature = latent.sigma**-2 + (block.trials[:1] if alike else block.trials) @ -t.dd_wrong
        curvature = np.exp(0.5 * coarse) * np.sqrt(curvature[:, :-1] * curvature[:, 1:])
        depth = np.minimum(below[:, :-1], below[:, 1:])
        depth -= 0.125 * coarse**2 * curvature
        # What is left out may be as wide as the prior, and what is kept as narrow as that of all responses.
        outside = OUTSIDE + 0.5 * np.log(latent.sigma**2 * curvature.max())
        if depth[:, [0, -1]].min() > outside:
            break
        low, high = low - WIDER * (high - low), high + WIDER * (high - low)
    held = depth < outside
    first = held.argmax(axis=1)
    last = held.shape[1] - held[:, ::-1].argmax(axis=1)
    np.maximum(depth, 0.0, out=depth)
    depth *= -(STEP_PER_SD**2) / (2.0 * np.pi**2)
    depth += 1.0
    depth *= curvature
    return _Windows(nodes[first], nodes[last], STEP_PER_SD / np.sqrt(depth.max(axis=1)))


def _cut(windows: _Windows, n_respondents: int) -> list[Index]:
    """Items in parts, halved as long as that saves time."""

    def cost(part: Index) -> float:
        return _cost(part.size, windows.grid(part), n_respondents)

    done, todo = [], [np.arange(windows.low.size)]
    while todo:
        part = todo.pop()
        best, halves = cost(part), []
        for by in windows if part.size >= 2 * LEAST else ():
            order = part[np.argsort(by[part], kind="stable")]
            two = [order[: part.size // 2], order[part.size // 2 :]]
            if (both := cost(two[0]) + cost(two[1])) < best:
                best, halves = both, two
        todo.extend(halves)
        if not halves:
            done.append(part)
    return done
