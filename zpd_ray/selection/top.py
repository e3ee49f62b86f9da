"""The exact top of a budget in constant memory, by radix selection on 64-bit keys.

Histograms of one 16-bit digit of the keys, added over blocks, tell in which digit the budget runs out. The
search descends into that digit until few enough rows are left to sort. Nothing sorts or collects the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zpd_ray.selection.keys import HASH_BITS, Keys, same_score

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

    def start(self, keys: Keys) -> Keys:
        """As many digits of each key as the prefix has."""
        return keys >> np.uint64(self.shift + DIGIT_BITS) if self.depth else np.zeros_like(keys)

    def contains(self, keys: Keys) -> NDArray[np.bool_]:
        """Which keys start with the prefix."""
        return self.start(keys) == np.uint64(self.value)

    def digit(self, keys: Keys) -> NDArray[np.int64]:
        """The digit that follows the prefix."""
        return ((keys >> np.uint64(self.shift)) & np.uint64(DIGITS - 1)).astype(np.int64)


@dataclass(frozen=True)
class Threshold:
    """The last item that the budget pays for; an item at or before it, in order of (key, id), is chosen.

    Where no other item has its key, ``LAST_ID`` stands for its id.
    """

    key: int
    item_id: str

    def keeps(self, keys: Keys, ids_of: Callable[[NDArray[np.int64]], Iterable[str]]) -> NDArray[np.bool_]:
        """Which items are chosen: keys (n,). ``ids_of`` tells the ids of rows, asked for ties alone."""
        kept = keys < np.uint64(self.key)
        tied = np.flatnonzero(keys == np.uint64(self.key))
        if len(tied):
            kept[tied] = [item_id <= self.item_id for item_id in ids_of(tied)]
        return kept


LAST_ID = "\U0010ffff"
NOTHING = Threshold(0, "")  # before every key of an id that is not empty
EVERYTHING = Threshold(LAST_KEY, LAST_ID)


def histogram(keys: Keys, weights: NDArray[np.int64], prefix: Prefix) -> NDArray[np.int64]:
    """Rows and weight per digit after ``prefix``: shape (2, 65536), integers that add over blocks."""
    inside = prefix.contains(keys)
    digits = prefix.digit(keys[inside])
    rows = np.bincount(digits, minlength=DIGITS)
    # bincount's own weights are floats; integer sums must stay exact.
    weight = np.zeros(DIGITS, dtype=np.int64)
    np.add.at(weight, digits, weights[inside])
    return np.stack([rows, weight])


Ids = Callable[[NDArray[np.int64]], Sequence[str]]  # of some rows; asked for those that share a key alone
Histogram = Callable[[list[Prefix]], Iterable[NDArray[np.int64]]]
Collect = Callable[[Prefix], tuple[Keys, Ids, NDArray[np.int64]]]


class Bought(NamedTuple):
    """What a budget buys: up to which item, rows, their weight.

    tied: rows with the score of the threshold, drawn: how many of them are bought.
    """

    threshold: Threshold
    rows: int
    weight: int
    tied: int = 0
    drawn: int = 0


@dataclass(frozen=True)
class Top:
    """What a budget buys, and all rows by their first digit: (65536,), beyond the threshold too."""

    bought: Bought
    rows_per_digit: NDArray[np.int64]

    @property
    def threshold(self) -> Threshold:
        """The last item that is bought."""
        return self.bought.threshold

    @property
    def rows(self) -> int:
        """How many are bought."""
        return self.bought.rows

    @property
    def weight(self) -> int:
        """Of all that is bought."""
        return self.bought.weight


def find_top(budget: int, histogram_of: Histogram, collect: Collect) -> Top:
    """Take items in order of (key, id) while their summed weight fits ``budget``.

    It ends at the first item that does not fit.

    ``histogram_of(prefixes)`` counts over the whole pool after each prefix, all of one depth and ascending;
    ``collect(prefix)`` brings the (keys, ids, weights) under one.
    """
    (first,) = histogram_of([Prefix()])
    rows, weight = first
    if weight.sum() <= budget:
        return Top(Bought(EVERYTHING, int(rows.sum()), int(weight.sum())), first[0])
    descent = Descent(budget).into(first)
    while not descent.settled:
        (counts,) = histogram_of([descent.prefix])
        descent = descent.into(counts)
    return Top(descent.end(*collect(descent.prefix)), first[0])


@dataclass(frozen=True)
class Descent:
    """How far a search has come: the budget runs out under ``prefix``.

    taken: rows before the prefix, spent: their weight; settled: few enough are under it to be sorted. ties:
    once the prefix has all bits of a score, rows with better scores, and with this one.
    """

    budget: int
    prefix: Prefix = Prefix()
    taken: int = 0
    spent: int = 0
    settled: bool = False
    ties: tuple[int, int] | None = None

    def into(self, counts: NDArray[np.int64]) -> Descent:
        """One digit on, by the histogram after the prefix, (2, 65536), which weighs more than is left."""
        rows, weight = counts
        before = np.concatenate([[0], np.cumsum(weight)])
        digit = int(np.searchsorted(before, self.budget - self.spent, side="right")) - 1
        prefix = self.prefix.child(digit)
        settled = rows[digit] <= SORTABLE_ROWS or prefix.depth == 64 // DIGIT_BITS
        taken, spent = self.taken + int(rows[:digit].sum()), self.spent + int(before[digit])
        ties = self.ties
        if self.prefix.shift < HASH_BITS <= self.prefix.shift + DIGIT_BITS:  # in this digit the score ends
            same = 1 << (HASH_BITS - self.prefix.shift)
            first = digit // same * same
            ties = self.taken + int(rows[:first].sum()), int(rows[first : first + same].sum())
        return Descent(self.budget, prefix, taken, spent, bool(settled), ties)

    def end(self, keys: Keys, ids_of: Ids, weights: NDArray[np.int64]) -> Bought:
        """What is bought, by all items under the prefix."""
        left = self.budget - self.spent
        threshold, rows, weight = _last_that_fits(self.prefix, left, keys, ids_of, weights)
        key, rows = threshold.key, self.taken + rows
        if self.ties is None:  # all items with this score are under the prefix
            same = same_score(keys, key)
            better, tied = self.taken + int((~same & (keys < np.uint64(key))).sum()), int(same.sum())
        else:
            better, tied = self.ties
        return Bought(threshold, rows, self.spent + weight, tied, rows - better)


def _last_that_fits(
    prefix: Prefix, left: int, keys: Keys, ids_of: Ids, weights: NDArray[np.int64]
) -> tuple[Threshold, int, int]:
    """The threshold, rows under the prefix up to it and their weight."""
    order = np.argsort(keys, kind="stable")

    def fitting() -> tuple[int, int]:
        cumulative = np.cumsum(weights[order])
        n = int(np.searchsorted(cumulative, left, side="right"))
        return n, int(cumulative[n - 1]) if n else 0

    def by_id(at: int) -> None:
        """Order by their ids those that share the key of the one at this place."""
        tied = np.flatnonzero(keys[order] == keys[order[at]])
        if len(tied) > 1:
            order[tied] = order[tied][np.argsort(np.array(ids_of(order[tied]), dtype=object), kind="stable")]

    # Ids decide among equal keys: first of the item that does not fit, which has the same key whatever the
    # order of ids, then of the last that fits.
    if (n := fitting()[0]) < len(order):
        by_id(n)
    if n := fitting()[0]:
        by_id(n - 1)
    n, weight = fitting()
    if n == 0:  # all that comes before the prefix, and nothing under it
        return Threshold(prefix.value << (prefix.shift + DIGIT_BITS), ""), 0, 0
    last = order[n - 1 : n]
    alone = int((keys == keys[last]).sum()) == 1
    return Threshold(int(keys[last[0]]), LAST_ID if alone else ids_of(last)[0]), n, weight


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
