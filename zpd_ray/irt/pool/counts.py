"""Integer sufficient statistics of one respondent's measurements, added over blocks.

A cell is (bin, group, successes, trials); its count is the number of items in it. Integers add without
rounding, and cells are kept in one sorted order, so any number of blocks in any order gives the same arrays,
bit for bit, and therefore the same fit. Size depends on the number of distinct cells, not of items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Integers = NDArray[np.int64]
FIELDS = ("bins", "groups", "successes", "trials")


@dataclass(frozen=True)
class Counts:
    """Cells in ascending order of (bin, group, successes, trials). All arrays int64, shape (n_cells,).

    `freq` is the number of items in each cell, as `fit_explanatory(..., freq=counts.freq)` takes it.

    >>> first = Counts.of([3, 3, 1], [0, 0, 0], [1, 1, 0], [2, 2, 2])
    >>> (first + Counts.of([3], [0], [1], [2])).freq.tolist()
    [1, 3]
    """

    bins: Integers
    groups: Integers
    successes: Integers
    trials: Integers
    freq: Integers

    @classmethod
    def of(cls, bins: ArrayLike, groups: ArrayLike, successes: ArrayLike, trials: ArrayLike) -> Counts:
        """Count a block of items: four integer arrays of one length, 0 <= successes <= trials.

        Raises ValueError for other types, lengths or ranges.
        """
        columns = [
            _integers(name, value)
            for name, value in zip(FIELDS, (bins, groups, successes, trials), strict=True)
        ]
        if len({column.size for column in columns}) > 1:
            sizes = {name: column.size for name, column in zip(FIELDS, columns, strict=True)}
            raise ValueError(f"Counts.of: arrays of one length expected, got {sizes}; pass one row per item.")
        bad = np.flatnonzero((columns[2] < 0) | (columns[2] > columns[3]))
        if bad.size:
            raise ValueError(
                f"Counts.of: successes must lie between 0 and trials; row {bad[0]} has "
                f"{columns[2][bad[0]]} of {columns[3][bad[0]]}; check the grader's counts."
            )
        return cls._collect(columns, None)

    @classmethod
    def merge(cls, parts: Iterable[Counts]) -> Counts:
        """Add any number of counts; the order of `parts` makes no difference."""
        parts = list(parts)
        empty = np.zeros(0, np.int64)
        columns = [np.concatenate([empty, *(getattr(part, name) for part in parts)]) for name in FIELDS]
        return cls._collect(columns, np.concatenate([empty, *(part.freq for part in parts)]))

    @classmethod
    def _collect(cls, columns: list[Integers], freq: Integers | None) -> Counts:
        key, rows = _keys(columns)
        if freq is None:
            order, first = np.unique(key, return_counts=True)
            total = first.astype(np.int64)
        else:
            order, inverse = np.unique(key, return_inverse=True)
            total = np.zeros(order.size, np.int64)
            np.add.at(total, inverse.reshape(-1), freq)
        bins, groups, successes, trials = rows(order)
        return cls(bins, groups, successes, trials, total)

    def __add__(self, other: Counts) -> Counts:
        return Counts.merge([self, other])

    @property
    def n_items(self) -> int:
        """Number of items counted."""
        return int(self.freq.sum())

    def to_dict(self) -> dict[str, list[int]]:
        """Plain lists of integers, for JSON."""
        return {name: getattr(self, name).tolist() for name in (*FIELDS, "freq")}

    @classmethod
    def from_dict(cls, state: Mapping[str, ArrayLike]) -> Counts:
        """Inverse of `to_dict`; also takes arrays."""
        columns = [_integers(name, state[name]) for name in FIELDS]
        return cls._collect(columns, _integers("freq", state["freq"]))


def _integers(name: str, value: ArrayLike) -> Integers:
    array = np.asarray(value)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(
            f"Counts: {name} must be a one-dimensional integer array, got {array.dtype} of shape "
            f"{array.shape}; bin real values first (np.floor(x / width).astype(np.int64))."
        )
    return array.astype(np.int64)


def _keys(columns: list[Integers]) -> tuple[Integers, _Decoder]:
    """One integer per row, ascending as the rows are (mixed radix), and the way back."""
    low = [int(column.min(initial=0)) for column in columns]
    radix = [int(column.max(initial=0)) - base + 1 for column, base in zip(columns, low, strict=True)]
    if np.prod([float(r) for r in radix]) >= 2.0**62:
        raise ValueError(
            f"Counts: the ranges of {FIELDS} are {radix}, too wide to count together; use narrower bins."
        )
    key = np.zeros(columns[0].size, np.int64)
    for column, base, size in zip(columns, low, radix, strict=True):
        key = key * size + (column - base)
    return key, _Decoder(low, radix)


@dataclass(frozen=True)
class _Decoder:
    low: list[int]
    radix: list[int]

    def __call__(self, key: Integers) -> list[Integers]:
        columns = []
        for base, size in zip(reversed(self.low), reversed(self.radix), strict=True):
            key, digit = np.divmod(key, size)
            columns.append(digit + base)
        return columns[::-1]
