"""Integer sufficient statistics of one respondent's measurements, added over blocks.

A cell is one combination of values of the named columns, such as (NLL bin, options, successes, trials); its
count is the number of items in it. Integers add without rounding, and cells are kept in one sorted order, so
any number of blocks in any order gives the same arrays, bit for bit, and therefore the same fit. Size depends
on the number of distinct cells, not of items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Integers = NDArray[np.int64]

DENSE = 2**16  # cells that are held, empty ones too, rather than keys sorted


@dataclass(frozen=True)
class Counts:
    """Cells in ascending order of their columns. All arrays int64, shape (n_cells,).

    `freq` is the number of items in each cell, as `fit_explanatory(..., freq=counts.freq)` takes it.

    >>> first = Counts.of(bin=[3, 3, 1], successes=[1, 1, 0], trials=[2, 2, 2])
    >>> both = first + Counts.of(bin=[3], successes=[1], trials=[2])
    >>> both["bin"].tolist(), both.freq.tolist()
    ([1, 3], [1, 3])
    """

    columns: dict[str, Integers]
    freq: Integers

    def __getitem__(self, column: str) -> Integers:
        """The values of a column, one per cell."""
        return self.columns[column]

    @classmethod
    def of(cls, **columns: ArrayLike) -> Counts:
        """Count a block of items: integer arrays of one length, by name.

        Columns called ``successes`` and ``trials`` must satisfy 0 <= successes <= trials. Raises ValueError
        for other types, lengths or ranges.
        """
        found = {name: _integers(name, value) for name, value in columns.items()}
        sizes = {name: column.size for name, column in found.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"Counts.of: arrays of one length expected, got {sizes}; pass one row per item.")
        _check_successes(found)
        return cls._collect(found, None)

    @classmethod
    def merge(cls, parts: Iterable[Counts]) -> Counts:
        """Add any number of counts with the same columns, one at least; their order makes no difference.

        Raises ValueError for other columns.
        """
        parts = list(parts)
        names = {tuple(part.columns) for part in parts}
        if len(names) != 1:
            raise ValueError(f"Counts.merge: counts with the same columns expected, got {sorted(names)}.")
        columns = {name: np.concatenate([part[name] for part in parts]) for name in names.pop()}
        return cls._collect(columns, np.concatenate([part.freq for part in parts]))

    @classmethod
    def _collect(cls, columns: dict[str, Integers], freq: Integers | None) -> Counts:
        cell, size = _dense(_keys(columns))
        some = np.full(size, -1, np.int64)  # a row of each cell; -1: there is none
        some[cell] = np.arange(cell.size)
        present = np.flatnonzero(some >= 0)
        total = np.bincount(cell, minlength=size) if freq is None else np.zeros(size, np.int64)
        if freq is not None:
            np.add.at(total, cell, freq)  # bincount's own weights are floats
        rows = some[present]
        return cls({name: values[rows] for name, values in columns.items()}, total[present])

    def __add__(self, other: Counts) -> Counts:
        return Counts.merge([self, other])

    @property
    def n_items(self) -> int:
        """Number of items counted."""
        return int(self.freq.sum())

    def to_dict(self) -> dict[str, list[int]]:
        """Plain lists of integers by column, and ``freq``, for JSON."""
        return {name: values.tolist() for name, values in (self.columns | {"freq": self.freq}).items()}

    @classmethod
    def from_dict(cls, state: Mapping[str, ArrayLike]) -> Counts:
        """Inverse of `to_dict`; also takes arrays."""
        columns = {name: _integers(name, values) for name, values in state.items()}
        freq = columns.pop("freq")
        return cls._collect(columns, freq)


def _check_successes(columns: Mapping[str, Integers]) -> None:
    if not {"successes", "trials"} <= columns.keys():
        return
    successes, trials = columns["successes"], columns["trials"]
    bad = np.flatnonzero((successes < 0) | (successes > trials))
    if bad.size:
        raise ValueError(
            f"Counts.of: successes must lie between 0 and trials; row {bad[0]} has "
            f"{successes[bad[0]]} of {trials[bad[0]]}; check the grader's counts."
        )


def _integers(name: str, value: ArrayLike) -> Integers:
    array = np.asarray(value)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(
            f"Counts: {name} must be a one-dimensional integer array, got {array.dtype} of shape "
            f"{array.shape}; bin real values first (np.floor(x / width).astype(np.int64))."
        )
    return array.astype(np.int64)


def _keys(columns: Mapping[str, Integers]) -> Integers:
    """One integer per row, ascending as the rows are (mixed radix; ranks where that would overflow)."""
    key, reach = np.zeros(next(iter(columns.values())).size, np.int64), 1
    for column in columns.values():
        digit, size = column - column.min(initial=0), int(np.ptp(column)) + 1 if column.size else 1
        if reach * size >= 2**62:
            (key, reach), (digit, size) = _ranks(key), _ranks(digit)
        key, reach = key * size + digit, reach * size
    return key


def _dense(keys: Integers) -> tuple[Integers, int]:
    """Keys, or their ranks where they are far between, and how many values they may have."""
    reach = int(keys.max(initial=-1)) + 1
    return (keys, reach) if reach <= DENSE + 4 * keys.size else _ranks(keys)


def _ranks(values: Integers) -> tuple[Integers, int]:
    """Ranks of values, from 0, and how many there are."""
    distinct, ranks = np.unique(values, return_inverse=True)
    return ranks.reshape(-1).astype(np.int64), max(distinct.size, 1)
