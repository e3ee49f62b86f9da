"""Checked responses of the explanatory model with their sufficient statistics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Columns = NDArray[np.intp] | slice

SORTED_FROM = 2048  # items
MAX_FLOORS = 64


@dataclass(frozen=True)
class Design:
    """Checked responses to items in columns. `score` = successes summed over respondents.

    successes, trials: (n_respondents, n_items), any number type. covariates: (n_items, n_covariates), origin
    taken off. freq: (n_items,) items per column. floors: (c, columns) for each distinct guessing floor.
    totals: (n_respondents,) successes by respondent, weighted by freq. row: (n_respondents,) trials when they
    are the same for every item and nothing is guessed, else None. Items enter by their score alone unless
    they can be guessed.
    """

    successes: NDArray[Any]
    trials: NDArray[Any]
    covariates: Array
    freq: Array
    score: Array
    totals: Array
    floors: list[tuple[float, NDArray[np.intp] | slice]]
    row: Array | None

    @property
    def n_items(self) -> int:
        return self.trials.shape[1]

    @property
    def possible(self) -> Array:
        """Trials by respondent, weighted by freq. (n_respondents,)"""
        if self.row is not None:
            return self.row * self.freq.sum()
        if (self.freq == 1.0).all():
            return row_sums(self.trials)
        return np.asarray(self.trials @ self.freq, np.float64)

    def free_totals(self) -> Array:
        """Successes by respondent on items that cannot be guessed, weighted by freq. (n_respondents,)"""
        if len(self.floors) == 1:
            return self.totals if self.floors[0][0] == 0.0 else np.zeros_like(self.totals)
        free = [columns for c, columns in self.floors if c == 0.0]
        if not free:
            return np.zeros_like(self.totals)
        return np.asarray(self.successes[:, free[0]] @ self.freq[free[0]], np.float64)

    @property
    def most(self) -> Array:
        """Largest number of trials of a respondent on one item. (n_respondents,)"""
        return np.asarray(self.trials.max(axis=1), np.float64)

    def rows(self, keep: NDArray[np.intp]) -> Design:
        """The design of some of the respondents."""
        if keep.size == self.trials.shape[0]:
            return self
        s = self.successes[keep]
        return replace(
            self,
            successes=s,
            trials=self.trials[keep],
            score=column_sums(s),
            totals=self.totals[keep],
            row=None if self.row is None else self.row[keep],
        )

    def columns(self, part: Columns, most_floors: int = MAX_FLOORS) -> Design:
        """The design of some of the items, or of all in another order."""
        c = np.zeros(self.n_items)
        for floor, columns in self.floors:
            c[columns] = floor
        c = few_floors(c[part], most_floors)
        return build(self.successes[:, part], self.trials[:, part], self.covariates[part], c, self.freq[part])

    def order(self, gamma: Array) -> NDArray[np.intp] | None:
        """Items by prior mean, so that a block of them needs a short grid; None where that would not pay."""
        if self.n_items < SORTED_FROM or gamma.size == 0:
            return None
        return np.argsort(self.covariates @ gamma, kind="stable")

    def collapsed(self) -> Design:
        """One column for each score, where items differ by nothing else (complete, nothing guessed)."""
        if self.row is None or self.covariates.shape[1]:
            return self
        place = self.score.astype(np.int64)
        # Columns that stand for no item (freq 0) get a difficulty, too.
        score = np.flatnonzero(np.bincount(place))
        freq = np.bincount(place, weights=self.freq)[score].astype(np.float64)
        trials = np.repeat(self.row[:, None], score.size, axis=1)
        return replace(
            self,
            trials=trials,
            successes=np.zeros((self.row.size, 0)),
            covariates=np.zeros((score.size, 0)),
            freq=freq,
            score=score.astype(np.float64),
        )


def build(s: NDArray[Any], k: NDArray[np.generic], x: Array, c: Array, freq: Array) -> Design:
    """A design from checked arrays: successes, trials, centred covariates, floors, frequencies."""
    floors = _floors(few_floors(c))
    first = k[:, 0].astype(np.float64)
    complete = not c.any() and all((row == row[0]).all() for row in k)
    totals = np.asarray(s @ freq, np.float64) if (freq != 1.0).any() else row_sums(s)
    return Design(s, k, x, freq, column_sums(s), totals, floors, first if complete else None)


def column_sums(s: NDArray[Any]) -> Array:
    """Successes by item, summed over respondents."""
    rows, columns = s.shape
    if s.dtype.itemsize == 1 and rows * int(s.max(initial=0)) < 256:
        # eight items to a machine word: bytes cannot carry into one another below 256
        padded = np.zeros((rows, -(-columns // 8) * 8), np.uint8) if columns % 8 else s.view(np.uint8)
        if columns % 8:
            padded[:, :columns] = s
        words = np.ascontiguousarray(padded).view(np.uint64)
        return np.add.reduce(words, axis=0).view(np.uint8)[:columns].astype(np.float64)
    return np.asarray(s.sum(axis=0, dtype=np.float64))


def row_sums(s: NDArray[Any]) -> Array:
    """Sums by respondent."""
    if s.dtype.itemsize == 1 and int(s.max(initial=0)) <= 1:
        return np.array([np.count_nonzero(row) for row in s], np.float64)
    return np.asarray(s.sum(axis=1, dtype=np.float64))


def few_floors(c: Array, most: int = MAX_FLOORS) -> Array:
    """At most so many guessing floors and 0: more are put into classes as large as one another, each with
    its mean, so that what is left of the difference is of second order (with floors from 0 to 0.5, theta
    moved by less than a hundredth of its standard error with 64). (n_items,)
    """
    some = np.flatnonzero(c)
    if np.unique(c[some]).size <= most:
        return c
    order = some[np.argsort(c[some], kind="stable")]
    merged = c.copy()
    for part in np.array_split(order, most):
        merged[part] = c[part].mean()
    return merged


def _floors(c: Array) -> list[tuple[float, Columns]]:
    if (c == c[0]).all():
        return [(float(c[0]), slice(None))]
    values, inverse = np.unique(c, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(inverse))[:-1])
    return [(float(value), part) for value, part in zip(values, parts, strict=True)]
