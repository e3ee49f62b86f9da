"""The quotas of a selection: what each group gets of the zone's budget, and up to which item it is spent.

Parts are passed over as in ``select``: histograms by group, and the few rows around each threshold, come to
the driver, whatever the size of the pool.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from zpd_ray.pipeline.cluster import parts
from zpd_ray.pipeline.fit.ability import followed_parts
from zpd_ray.pipeline.select.few import bring
from zpd_ray.pipeline.select.scoring import Scoring
from zpd_ray.rundir import Run
from zpd_ray.rundir.groups import group_numbers, named_groups
from zpd_ray.rundir.layout import POOL
from zpd_ray.selection.counts import Counts
from zpd_ray.selection.quotas import (
    Asked,
    Collect,
    Count,
    GroupTops,
    Integers,
    Rows,
    count,
    find_group_tops,
    share_out,
    under,
)
from zpd_ray.selection.top import Prefix

NAMED = 5  # groups in a sentence


@dataclass(frozen=True)
class Quotas:
    """What was bought by quotas. tops: by group; names: of the groups, the last the items of all others.

    budget: that was shared out by weights, (n_groups,); have: what could be chosen of each group.
    """

    names: tuple[str, ...]
    tops: GroupTops
    budget: int
    weights: Integers
    have: Integers

    @property
    def by_name(self) -> dict[str, int]:
        """The quota of each group, in the unit of the budget; "" for the items of all others, if any."""
        pairs = zip(self.names, self.tops.quota.tolist(), strict=True)
        return {name: quota for name, quota in pairs if name or quota}

    @property
    def unspent(self) -> bool:
        """Whether enough was there, and some of the budget is left all the same."""
        return int(self.tops.weight.sum()) < self.budget <= int(self.have.sum())

    @property
    def told(self) -> list[str]:
        """A sentence where groups had less than their share of the budget, so that the others got more."""
        wanted = np.floor(self.budget * (self.weights / max(1, int(self.weights.sum()))))
        short = np.flatnonzero((self.weights > 0) & (self.have < wanted)).tolist()
        if not short:
            return []
        names = ", ".join(self.names[group] or "the items of all others" for group in short[:NAMED])
        more = f" and {len(short) - NAMED} more" if len(short) > NAMED else ""
        return [f"quotas: {names}{more} had less than their share, and what they lack went to the others"]


def groups_for(run: Run) -> tuple[str, ...]:
    """Names of the groups that have quotas; none where the config asks for none."""
    if run.config.select.diverse.quota == "none":
        return ()
    return tuple(named_groups(run, run.store.names(POOL)[: followed_parts(run)], "select.diverse.quota"))


def with_quotas(scoring: Scoring, budget: int, small: bool) -> tuple[Scoring, Quotas | None]:
    """The scoring whose zone holds what its quotas buy of ``budget``; itself where there are none.

    small: whether the keys of all items may be brought to one place. The zone's replayed items are away.
    """
    if not scoring.groups or budget == 0:
        return scoring, None
    n_groups = len(scoring.groups) + 1
    every = [(group, Prefix()) for group in range(n_groups)]
    counts_of, collect = (_in_memory if small else _over_parts)(scoring, every)
    first = counts_of(every)
    have, weights = first.weights(n_groups), _weights(scoring, n_groups)
    tops = find_group_tops(share_out(budget, weights, have), first, counts_of, collect)
    told = Quotas((*scoring.groups, ""), tops, budget, weights, have)
    return replace(scoring, quotas=tops.thresholds), told


def _weights(scoring: Scoring, n_groups: int) -> Integers:
    """By which the budget is shared out: what the pool has of each group, or 1 where it has some."""

    def of_part(name: str) -> Integers:
        return _sizes(scoring, name, n_groups)

    sizes = parts.total(scoring.run.store.names(POOL), of_part, parts.added)
    equal = scoring.run.config.select.diverse.quota == "equal"
    return (sizes > 0).astype(np.int64) if equal else sizes


def _sizes(scoring: Scoring, part: str, n_groups: int) -> Integers:
    """Items of each group in a part, or their response tokens, by the unit of the budget."""
    group = group_numbers(scoring.run, part, list(scoring.groups))
    sizes = np.ones(len(group), dtype=np.int64)
    if scoring.unit == "tokens":
        table = scoring.run.store.read_table(f"{POOL}/{part}", ["response_tokens"])
        sizes = table["response_tokens"].to_numpy().astype(np.int64)
    total = np.zeros(n_groups, dtype=np.int64)
    np.add.at(total, group, sizes)
    return total


def _in_memory(scoring: Scoring, every: Asked) -> tuple[Count, Collect]:
    """One pass brings all keys; the search is the same."""
    group, keys, ids_of, weight = _collect(scoring, every)

    def some(asked: Asked) -> Rows:
        inside = np.flatnonzero(under(asked, group, keys))
        return group[inside], keys[inside], lambda at: ids_of(inside[at]), weight[inside]

    return lambda asked: count(asked, group, keys, weight), some


def _over_parts(scoring: Scoring, every: Asked) -> tuple[Count, Collect]:
    return partial(_count, scoring), partial(_collect, scoring)


def _count(scoring: Scoring, asked: Asked) -> Counts:
    """Histograms over all parts."""

    def of_part(name: str) -> Counts:
        ranked = scoring.ranked(name, "zone")
        return count(asked, scoring.groups_of(name, ranked.rows), ranked.keys, ranked.weight)

    return parts.total(scoring.run.store.names(POOL), of_part, Counts.add)


def _collect(scoring: Scoring, asked: Asked) -> Rows:
    """The rows of some groups under their prefixes."""
    few = bring(scoring, "zone", partial(under, asked))
    return few.group, few.key, few.ids, few.weight
