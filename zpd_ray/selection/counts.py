"""Histograms of the digits of sort keys, of which only what is not 0 is held; they add over blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zpd_ray.selection.keys import Keys
from zpd_ray.selection.top import DIGITS, Prefix

Integers = NDArray[np.int64]
FIELDS = ("at", "rows", "weight")


@dataclass(frozen=True)
class Counts:
    """Histograms that were asked for.

    at: place among those asked, times 65536, plus the digit, ascending and each once; rows, weight: as in
    ``top.histogram``. All int64 (n,).
    """

    at: Integers
    rows: Integers
    weight: Integers

    @staticmethod
    def add(found: Iterable[Counts]) -> Counts:
        """Over blocks."""
        each = [*found, Counts(*np.zeros((3, 0), dtype=np.int64))]
        return summed(*(np.concatenate([getattr(c, name) for c in each]) for name in FIELDS))

    def histogram(self, place: int) -> Integers:
        """The one at a place among those asked, as ``top.histogram`` makes it: (2, 65536)."""
        first, end = np.searchsorted(self.at, [place * DIGITS, (place + 1) * DIGITS])
        dense = np.zeros((2, DIGITS), dtype=np.int64)
        digits = self.at[first:end] - place * DIGITS
        dense[0, digits], dense[1, digits] = self.rows[first:end], self.weight[first:end]
        return dense

    def weights(self, places: int) -> Integers:
        """The weight of all that each histogram counts: (places,)."""
        total = np.zeros(places, dtype=np.int64)
        np.add.at(total, self.at // DIGITS, self.weight)
        return total


def summed(at: Integers, rows: Integers, weight: Integers) -> Counts:
    """Counts of which several may be at a place: their sums."""
    low, high = (int(at.min()), int(at.max())) if len(at) else (0, 0)
    if high - low <= DIGITS + len(at):  # close together: no sort
        present = np.flatnonzero(np.bincount(at - low))
        different, place, size = present + low, at - low, high - low + 1
    else:
        different, place = np.unique(at, return_inverse=True)
        present, size = np.arange(len(different)), len(different)
    sums = np.zeros((2, size), dtype=np.int64)
    np.add.at(sums[0], place, rows)
    np.add.at(sums[1], place, weight)
    return Counts(different, *sums[:, present])


def count(prefixes: Sequence[Prefix], keys: Keys, weight: Integers) -> Counts:
    """Histograms after prefixes of one depth, ascending, over a block of items: arrays (n,)."""
    values = np.array([prefix.value for prefix in prefixes], dtype=np.uint64)
    starts = prefixes[0].start(keys)
    place = np.minimum(np.searchsorted(values, starts), len(values) - 1)
    inside = np.flatnonzero(values[place] == starts)
    at = place[inside] * DIGITS + prefixes[0].digit(keys[inside])
    return summed(at, np.ones_like(at), weight[inside])
