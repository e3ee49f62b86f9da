"""Quotas: a budget shared out among groups of items, and the exact top of each group's share.

The search is that of ``top``, for all groups at once, so that a pool is passed over as often for a hundred
groups as for one. Groups are numbers from 0 on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zpd_ray.selection.keys import Keys
from zpd_ray.selection.top import DIGITS, EVERYTHING, NOTHING, Descent, Prefix, Threshold

MOST = 100  # groups with a quota of their own: the largest; the items of all others share one more

Integers = NDArray[np.int64]
Asked = Sequence[tuple[int, Prefix]]  # groups, and the prefix after which each is counted


def share_out(budget: int, weight: Integers, have: Integers) -> Integers:
    """What each group gets of a budget: in proportion to its weight, and no more than it has; (n_groups,).

    What a group cannot take goes to the others, in proportion again. Fractions become whole by the largest
    remainders, of equal ones the first. weight, have: not negative, (n_groups,); have in the unit of the
    budget. Where the groups together have less than the budget, each gets all that it has.
    """
    quota, w, h = [0] * len(have), weight.tolist(), have.tolist()  # Python's integers do not overflow
    going = [g for g in range(len(h)) if w[g] > 0 and h[g] > 0]
    left = min(budget, sum(h[g] for g in going))
    while going:
        total = sum(w[g] for g in going)
        full = [g for g in going if h[g] * total <= left * w[g]]
        if not full:
            break
        for g in full:
            quota[g] = h[g]
        left -= sum(h[g] for g in full)
        going = [g for g in going if g not in full]
    for g in going:
        quota[g] = left * w[g] // total
    rest = left - sum(quota[g] for g in going)
    for g in sorted(going, key=lambda g: (-(left * w[g] % total), g))[:rest]:
        quota[g] += 1
    return np.array(quota, dtype=np.int64)


@dataclass(frozen=True)
class Counts:
    """Histograms that were asked for, of which only what is not 0 is held.

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
        at, rows, weight = (np.concatenate([getattr(c, name) for c in each]) for name in _FIELDS)
        return _summed(at, rows, weight)

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


_FIELDS = ("at", "rows", "weight")


def _summed(at: Integers, rows: Integers, weight: Integers) -> Counts:
    different, place = np.unique(at, return_inverse=True)
    sums = np.zeros((2, len(different)), dtype=np.int64)
    np.add.at(sums[0], place, rows)
    np.add.at(sums[1], place, weight)
    return Counts(different, *sums)


def count(asked: Asked, group: Integers, keys: Keys, weight: Integers) -> Counts:
    """The histograms asked for, over a block of items: arrays (n,)."""
    places: dict[Prefix, dict[int, int]] = defaultdict(dict)
    for place, (of_group, prefix) in enumerate(asked):
        places[prefix][of_group] = place
    found = []
    for prefix, of in places.items():
        place_of = np.full(max(int(group.max(initial=0)), *of) + 1, -1, dtype=np.int64)
        place_of[list(of)] = list(of.values())
        inside = np.flatnonzero((place_of[group] >= 0) & prefix.contains(keys))
        at = place_of[group[inside]] * DIGITS + prefix.digit(keys[inside])
        found.append(_summed(at, np.ones_like(at), weight[inside]))
    return Counts.add(found)


def under(asked: Asked, group: Integers, keys: Keys) -> NDArray[np.bool_]:
    """Which items of a block are of a group, and under its prefix, that is asked for: (n,)."""
    inside = np.zeros(len(keys), dtype=bool)
    for of_group, prefix in asked:
        inside |= (group == of_group) & prefix.contains(keys)
    return inside


Rows = tuple[Integers, Keys, NDArray[np.object_], Integers]  # groups, keys, ids, weights
Count = Callable[[Asked], Counts]
Collect = Callable[[Asked], Rows]


@dataclass(frozen=True)
class GroupTops:
    """What the quotas buy: quota, weight and threshold of each group."""

    quota: Integers
    weight: Integers
    thresholds: tuple[Threshold, ...]


def find_group_tops(quotas: Integers, first: Counts, counts_of: Count, collect: Collect) -> GroupTops:
    """``top.find_top`` in each group by its quota, all groups in the same passes.

    first: the histograms of all groups before any digit; ``counts_of(asked)`` counts over the whole pool,
    ``collect(asked)`` brings the items under some prefixes.
    """
    have = first.weights(len(quotas))
    spent = np.minimum(have, quotas)
    thresholds = [EVERYTHING if have[g] <= quotas[g] else NOTHING for g in range(len(quotas))]
    scarce = [g for g in range(len(quotas)) if 0 < quotas[g] < have[g]]
    descents = {g: Descent(int(quotas[g])).into(first.histogram(g)) for g in scarce}
    while asked := [(g, d.prefix) for g, d in descents.items() if not d.settled]:
        counts = counts_of(asked)
        for place, (g, _) in enumerate(asked):
            descents[g] = descents[g].into(counts.histogram(place))
    if descents:
        group, keys, ids, weight = collect([(g, d.prefix) for g, d in descents.items()])
        for g, descent in descents.items():
            mine = group == g
            thresholds[g], _, spent[g] = descent.end(keys[mine], ids[mine], weight[mine])
    return GroupTops(quotas, spent, tuple(thresholds))


def keeps(
    thresholds: Sequence[Threshold],
    group: Integers,
    keys: Keys,
    ids_of: Callable[[NDArray[np.int64]], Iterable[str]],
) -> NDArray[np.bool_]:
    """Which items the quotas buy, each by the threshold of its group; as ``Threshold.keeps``: (n,)."""
    kept = np.zeros(len(keys), dtype=bool)
    for of_group in np.unique(group).tolist():
        mine = np.flatnonzero(group == of_group)
        kept[mine] = thresholds[of_group].keeps(keys[mine], lambda at, mine=mine: ids_of(mine[at]))
    return kept
