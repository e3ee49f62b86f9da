"""The exact top of a budget in constant memory, by radix selection on 64-bit keys.

Histograms of one 16-bit digit of the keys, added over blocks, tell in which digit the budget runs out. The
search descends into that digit until few enough rows are left to sort. Nothing sorts or collects the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zpd_ray.selection.keys import Keys

DIGIT_BITS = 16
DIGITS = 1 << DIGIT_BITS
LAST_KEY = 2**64 - 1
# So many rows may be brought to one place: some 10 MB of keys and ids.
SORTABLE_ROWS = 100_000


@dataclass(frozen=True)
class Prefix:
    """All keys whose first ``depth`` digits are ``value``."""

    value: int = 0
    depth: int = 0

    @property
    def shift(self) -> int:
        """Bits to the right of the digit that follows the prefix."""
        return 64 - DIGIT_BITS * (self.depth + 1)

    def child(self, digit: int) -> Prefix:
        """The prefix with one more digit."""
        return Prefix((self.value << DIGIT_BITS) | digit, self.depth + 1)

    def contains(self, keys: Keys) -> NDArray[np.bool_]:
        """Which keys start with the prefix."""
        if self.depth == 0:
            return np.ones(keys.shape, dtype=bool)
        return keys >> np.uint64(self.shift + DIGIT_BITS) == np.uint64(self.value)

    def digit(self, keys: Keys) -> NDArray[np.int64]:
        """The digit that follows the prefix."""
        return ((keys >> np.uint64(self.shift)) & np.uint64(DIGITS - 1)).astype(np.int64)


@dataclass(frozen=True)
class Threshold:
    """The last item that the budget pays for; an item at or before it, in order of (key, id), is chosen."""

    key: int
    item_id: str

    def keeps(self, keys: Keys, ids_of: Callable[[NDArray[np.int64]], Iterable[str]]) -> NDArray[np.bool_]:
        """Which items are chosen: keys (n,). ``ids_of`` tells the ids of rows, asked for ties alone."""
        kept = keys < np.uint64(self.key)
        tied = np.flatnonzero(keys == np.uint64(self.key))
        if len(tied):
            kept[tied] = [item_id <= self.item_id for item_id in ids_of(tied)]
        return kept


NOTHING = Threshold(0, "")  # before every key of an id that is not empty
EVERYTHING = Threshold(LAST_KEY, "\U0010ffff")


def histogram(keys: Keys, weights: NDArray[np.int64], prefix: Prefix) -> NDArray[np.int64]:
    """Rows and weight per digit after ``prefix``: shape (2, 65536), integers that add over blocks."""
    inside = prefix.contains(keys)
    digits = prefix.digit(keys[inside])
    rows = np.bincount(digits, minlength=DIGITS)
    # bincount's own weights are floats; integer sums must stay exact.
    weight = np.zeros(DIGITS, dtype=np.int64)
    np.add.at(weight, digits, weights[inside])
    return np.stack([rows, weight])


Histogram = Callable[[list[Prefix]], list[NDArray[np.int64]]]
Collect = Callable[[Prefix], tuple[Keys, NDArray[np.object_], NDArray[np.int64]]]


@dataclass(frozen=True)
class Top:
    """What a budget buys: up to which item, rows, their weight; and all rows per first digit (65536,).

    The last counts what may be chosen, beyond the threshold too.
    """

    threshold: Threshold
    rows: int
    weight: int
    rows_per_digit: NDArray[np.int64]


def find_top(budget: int, histogram_of: Histogram, collect: Collect) -> Top:
    """Take items in order of (key, id) while their summed weight fits ``budget``.

    It ends at the first item that does not fit.

    ``histogram_of(prefixes)`` counts over the whole pool after each prefix, ``collect(prefix)`` brings the
    (keys, ids, weights) under one.
    """
    (first,) = histogram_of([Prefix()])
    rows, weight = first
    if weight.sum() <= budget:
        return Top(EVERYTHING, int(rows.sum()), int(weight.sum()), first[0])
    descent = Descent(budget).into(first)
    while not descent.settled:
        (counts,) = histogram_of([descent.prefix])
        descent = descent.into(counts)
    return Top(*descent.end(*collect(descent.prefix)), first[0])


@dataclass(frozen=True)
class Descent:
    """How far a search has come: the budget runs out under ``prefix``.

    taken: rows before the prefix, spent: their weight; settled: few enough are under it to be sorted.
    """

    budget: int
    prefix: Prefix = Prefix()
    taken: int = 0
    spent: int = 0
    settled: bool = False

    def into(self, counts: NDArray[np.int64]) -> Descent:
        """One digit on, by the histogram after the prefix, (2, 65536), which weighs more than is left."""
        rows, weight = counts
        before = np.concatenate([[0], np.cumsum(weight)])
        digit = int(np.searchsorted(before, self.budget - self.spent, side="right")) - 1
        prefix = self.prefix.child(digit)
        settled = rows[digit] <= SORTABLE_ROWS or prefix.depth == 64 // DIGIT_BITS
        taken, spent = self.taken + int(rows[:digit].sum()), self.spent + int(before[digit])
        return Descent(self.budget, prefix, taken, spent, bool(settled))

    def end(
        self, keys: Keys, item_ids: NDArray[np.object_], weights: NDArray[np.int64]
    ) -> tuple[Threshold, int, int]:
        """The threshold, rows up to it and their weight, by all items under the prefix."""
        left = self.budget - self.spent
        threshold, rows, weight = _last_that_fits(self.prefix, left, keys, item_ids, weights)
        return threshold, self.taken + rows, self.spent + weight


def _last_that_fits(
    prefix: Prefix, left: int, keys: Keys, item_ids: NDArray[np.object_], weights: NDArray[np.int64]
) -> tuple[Threshold, int, int]:
    by_id = np.argsort(item_ids, kind="stable")
    order = by_id[np.argsort(keys[by_id], kind="stable")]
    cumulative = np.cumsum(weights[order])
    fitting = int(np.searchsorted(cumulative, left, side="right"))
    if fitting == 0:  # all that comes before the prefix, and nothing under it
        return Threshold(prefix.value << (prefix.shift + DIGIT_BITS), ""), 0, 0
    last = order[fitting - 1]
    return Threshold(int(keys[last]), str(item_ids[last])), fitting, int(cumulative[fitting - 1])


@dataclass(frozen=True)
class Starts:
    """Where the files of a selection begin: keys of their first rows, uint64, and the rows before, int64."""

    keys: Keys
    rows: NDArray[np.int64]


def file_starts(top: Top, rows_per_file: int, histogram_of: Histogram) -> Starts:
    """Split what a budget buys into files of about ``rows_per_file`` rows, at most twice as many.

    A file begins at the first digit past each multiple of ``rows_per_file``. Where a single digit holds more
    rows than that, its next digits are counted, all such digits of a depth in one pass.
    """
    found: dict[int, int] = {0: 0}
    level = [(Prefix(), top.rows_per_digit, 0)]
    while level:
        heavy: list[tuple[Prefix, int]] = []
        for prefix, rows, before in level:
            edges = before + np.concatenate([[0], np.cumsum(rows)])
            for digit in _digits_past(edges, rows_per_file, top.rows):
                child = prefix.child(digit)
                if rows[digit] > rows_per_file and child.depth < 64 // DIGIT_BITS:
                    heavy.append((child, int(edges[digit])))
                else:
                    found[child.value << (child.shift + DIGIT_BITS)] = int(edges[digit])
        counted = histogram_of([prefix for prefix, _ in heavy]) if heavy else []
        level = [(prefix, rows, before) for (prefix, before), (rows, _) in zip(heavy, counted, strict=True)]
    kept = sorted((key, rows) for key, rows in found.items() if key <= top.threshold.key)
    keys, before_each = zip(*kept, strict=True)
    return Starts(np.array(keys, dtype=np.uint64), np.array(before_each, dtype=np.int64))


def _digits_past(edges: NDArray[np.int64], rows_per_file: int, total: int) -> list[int]:
    """The digits in which the running count of rows passes a multiple of ``rows_per_file``."""
    first = -(-max(1, int(edges[0])) // rows_per_file) * rows_per_file
    multiples = np.arange(first, min(int(edges[-1]), total), rows_per_file)
    digits = np.searchsorted(edges, multiples, side="right") - 1
    return [int(digit) for digit in np.unique(digits)]
