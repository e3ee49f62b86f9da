"""Up to which item a budget pays, by passes over the keys of all parts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from zpd_ray.pipeline.cluster import parts
from zpd_ray.pipeline.select.few import Integers, bring
from zpd_ray.pipeline.select.scoring import Scoring
from zpd_ray.rundir.layout import POOL
from zpd_ray.selection.counts import Counts, count
from zpd_ray.selection.keys import Keys
from zpd_ray.selection.top import Collect, Histogram, Ids, Prefix, Top, find_top, histogram


def top_of(
    scoring: Scoring, reason: str, budget: int, small: bool, first: Counts | None = None
) -> tuple[Top, Histogram]:
    """What a budget buys.

    small: whether the keys of all items may be brought to one place; first: the histogram before any digit,
    where it is known.
    """
    counts_of, collect = _in_memory(scoring, reason) if small else _over_parts(scoring, reason, first)
    return find_top(budget, counts_of, collect), counts_of


def _in_memory(scoring: Scoring, reason: str) -> tuple[Histogram, Collect]:
    """One pass brings all keys; the search is the same."""
    keys, ids_of, weights = _collect(scoring, reason, Prefix())

    def counts_of(prefixes: list[Prefix]) -> Iterator[Integers]:
        return (histogram(keys, weights, prefix) for prefix in prefixes)

    def under(prefix: Prefix) -> tuple[Keys, Ids, Integers]:
        inside = np.flatnonzero(prefix.contains(keys))
        return keys[inside], lambda at: ids_of(inside[at]), weights[inside]

    return counts_of, under


def _over_parts(scoring: Scoring, reason: str, first: Counts | None) -> tuple[Histogram, Collect]:
    def counts_of(prefixes: list[Prefix]) -> Iterator[Integers]:
        """One at a time: each is 1 MB, and there may be thousands."""
        counts = first if prefixes == [Prefix()] else None
        counts = _count(scoring, reason, prefixes) if counts is None else counts
        return map(counts.histogram, range(len(prefixes)))

    return counts_of, partial(_collect, scoring, reason)


def _count(scoring: Scoring, reason: str, prefixes: list[Prefix]) -> Counts:
    """Rows and weight per digit over all parts."""

    def of_part(name: str) -> Counts:
        ranked = scoring.ranked(name, reason)
        return count(prefixes, ranked.keys, ranked.weight)

    return parts.total(scoring.run.store.names(POOL), of_part, Counts.add)


def _collect(scoring: Scoring, reason: str, prefix: Prefix) -> tuple[Keys, Ids, Integers]:
    """The rows under a prefix: the few among which the budget runs out."""
    few = bring(scoring, reason, lambda _group, keys: prefix.contains(keys))
    return few.key, few.ids, few.weight
