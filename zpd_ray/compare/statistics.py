"""Means over seeds and items with their bootstrap intervals.

Seeds and items are both samples: another seed trains another model, another evaluation set asks other
questions. Where every seed is judged by the same items, the two are crossed, and both are drawn at once: the
items that are drawn count in every seed (Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics
1, 386-411). Items drawn anew in each seed would make an interval too narrow, by up to the square root of the
number of seeds, wherever an item favours one method in all of them. Where every seed is a world with items
of its own, items are drawn within the seeds.

Of S seeds S - 1 are drawn (Rao and Wu 1988, "Resampling inference with complex survey data", JASA 83,
231-241): else the spread between few seeds would be told too small, by (S - 1) / S. An interval over few
seeds stays too narrow where they differ much (docs/decisions.md has how often it holds the truth). One seed
says nothing of the spread between seeds: then items alone are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
REPLICATES = 4000
CONFIDENCE = 0.95
CELLS = 5_000_000  # draws that are held at a time


@dataclass(frozen=True)
class Interval:
    """A mean with the ends of its interval: of 95 %, by percentiles of the bootstrap."""

    mean: float
    low: float
    high: float

    @property
    def told(self) -> str:
        """What a difference with such an interval says, in words."""
        if self.low > 0:
            return "above"
        return "below" if self.high < 0 else "not distinguishable from"


def crossed(values: Floats, seed: int = 0) -> Interval:
    """Of values of the same items in every seed, float64 (seeds, items); all finite.

    For a paired difference give differences. The same ``seed`` draws the same.
    """
    seeds, items = values.shape
    rng = np.random.default_rng(seed)
    means: list[Floats] = []
    left = REPLICATES
    while left:
        now = min(left, max(1, CELLS // items))
        by_seed = _weights(rng, now, items, items) @ values.T  # (now, seeds): means of the items drawn
        means.append((by_seed * _weights(rng, now, max(1, seeds - 1), seeds)).sum(axis=1))
        left -= now
    return _interval(float(values.mean()), np.concatenate(means))


def nested(values: Sequence[Floats], seed: int = 0) -> Interval:
    """Of values of other items in every seed, one array for each: the mean over seeds of their means."""
    rng = np.random.default_rng(seed)
    draws = max(1, len(values) - 1)
    which = rng.integers(0, len(values), (REPLICATES, draws))
    means = np.empty(which.shape)
    for index, items in enumerate(values):  # a seed that is drawn twice has its items drawn twice
        means[which == index] = _means(rng, items, int((which == index).sum()))
    return _interval(float(np.mean([items.mean() for items in values])), means.mean(axis=1))


def _means(rng: np.random.Generator, items: Floats, size: int) -> Floats:
    """Means of so many draws of the items: (size,)."""
    step = max(1, CELLS // len(items))
    sizes = [min(step, size - start) for start in range(0, size, step)]
    drawn = [_weights(rng, now, len(items), len(items)) @ items for now in sizes]
    return np.concatenate([np.zeros(0), *drawn])


def _weights(rng: np.random.Generator, rows: int, draws: int, among: int) -> Floats:
    """Shares of ``draws`` draws with replacement that fall on each of ``among``: (rows, among)."""
    drawn = rng.integers(0, among, (rows, draws)) + among * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * among).reshape(rows, among) / draws


def _interval(mean: float, means: Floats) -> Interval:
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(mean, float(low), float(high))
