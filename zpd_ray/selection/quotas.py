"""Quotas: a budget shared out among groups of items, and the exact top of each group's share.

The search is that of ``top``, for all groups at once, so that a pool is passed over as often for a hundred
groups as for one. Groups are numbers from 0 on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from zpd_ray.selection.counts import Counts, Integers, summed
from zpd_ray.selection.keys import Keys
from zpd_ray.selection.top import DIGITS, EVERYTHING, NOTHING, Bought, Descent, Ids, Prefix, Threshold

MOST = 100  # groups with a quota of their own: the largest; the items of all others share one more

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
        found.append(summed(at, np.ones_like(at), weight[inside]))
    return Counts.add(found)


def under(asked: Asked, group: Integers, keys: Keys) -> NDArray[np.bool_]:
    """Which items of a block are of a group, and under its prefix, that is asked for: (n,)."""
    inside = np.zeros(len(keys), dtype=bool)
    for of_group, prefix in asked:
        inside |= (group == of_group) & prefix.contains(keys)
    return inside


Rows = tuple[Integers, Keys, Ids, Integers]  # groups, keys, ids, weights
Count = Callable[[Asked], Counts]
Collect = Callable[[Asked], Rows]


@dataclass(frozen=True)
class GroupTops:
    """What the quotas buy: of each group its quota, and what that buys."""

    quota: Integers
    bought: tuple[Bought, ...]

    @property
    def thresholds(self) -> tuple[Threshold, ...]:
        """Up to which item of each group."""
        return tuple(each.threshold for each in self.bought)

    @property
    def weight(self) -> Integers:
        """Of what is bought of each group."""
        return np.array([each.weight for each in self.bought], dtype=np.int64)


def find_group_tops(quotas: Integers, first: Counts, counts_of: Count, collect: Collect) -> GroupTops:
    """``top.find_top`` in each group by its quota, all groups in the same passes.

    first: the histograms of all groups before any digit; ``counts_of(asked)`` counts over the whole pool,
    ``collect(asked)`` brings the items under some prefixes.
    """
    groups, have = range(len(quotas)), first.weights(len(quotas))
    rows = [int(first.histogram(g)[0].sum()) for g in groups]
    bought = [
        Bought(EVERYTHING, rows[g], int(have[g])) if have[g] <= quotas[g] else Bought(NOTHING, 0, 0)
        for g in groups
    ]
    scarce = [g for g in groups if 0 < quotas[g] < have[g]]
    descents = {g: Descent(int(quotas[g])).into(first.histogram(g)) for g in scarce}
    while asked := [(g, d.prefix) for g, d in descents.items() if not d.settled]:
        counts = counts_of(asked)
        for place, (g, _) in enumerate(asked):
            descents[g] = descents[g].into(counts.histogram(place))
    if descents:
        group, keys, ids_of, weight = collect([(g, d.prefix) for g, d in descents.items()])
        for g, descent in descents.items():
            mine = np.flatnonzero(group == g)
            bought[g] = descent.end(keys[mine], partial(_of_group, ids_of, mine), weight[mine])
    return GroupTops(quotas, tuple(bought))


def _of_group(ids_of: Ids, mine: Integers, at: Integers) -> Sequence[str]:
    return ids_of(mine[at])


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
