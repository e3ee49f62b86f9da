"""Quotas: shares of a budget against what fairness says, and each group's top against a plain sort."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.selection.test_top import plain, tables
from zpd_ray.selection import top
from zpd_ray.selection.quotas import Asked, Counts, Rows, count, find_group_tops, keeps, share_out, under
from zpd_ray.selection.top import Prefix

SIZES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=8)


@given(SIZES, st.integers(0, 200))
def test_each_gets_its_share_unless_it_has_less_and_all_is_given(
    groups: list[tuple[int, int]], budget: int
) -> None:
    weight, have = np.array(groups, dtype=np.int64).T
    quota = share_out(budget, weight, have)
    assert (quota >= 0).all()
    assert (quota <= have).all()
    assert quota.sum() == min(budget, have[weight > 0].sum())
    some = np.flatnonzero((quota < have) & (weight > 0))  # which would take more
    for g in some:  # nobody has more for its weight, but for what rounding to whole ones does
        for h in np.flatnonzero(quota > 0):
            assert (quota[h] - 1) * weight[g] <= (quota[g] + 1) * weight[h]


def test_shares_are_those_that_one_reckons() -> None:
    def shares(budget: int, weight: list[int], have: list[int]) -> list[int]:
        return share_out(budget, np.array(weight), np.array(have)).tolist()

    assert shares(10, [1, 1], [20, 20]) == [5, 5]
    assert shares(10, [3, 1], [20, 20]) == [8, 2]  # 7.5 and 2.5: of equal remainders the first
    assert shares(10, [1, 1, 1], [1, 20, 20]) == [1, 5, 4]
    assert shares(9, [1, 1, 1], [1, 3, 20]) == [1, 3, 5]
    assert shares(100, [5, 1], [3, 4]) == [3, 4]
    assert shares(10, [0, 1], [20, 20]) == [0, 10]
    assert shares(2**40, [2**40, 2**40], [2**41, 2**41]) == [2**39, 2**39]  # the product is beyond int64


def blocks_of(rows: Rows, cuts: list[int]) -> list[Rows]:
    edges = [0, *sorted(cuts), len(rows[0])]
    return [tuple(column[a:b] for column in rows) for a, b in pairwise(edges)]  # type: ignore[misc]


@given(tables(), st.integers(1, 4), st.data(), st.sampled_from([0, 1, 3, 100_000]))
@settings(max_examples=50)
def test_each_group_gets_the_top_of_its_quota_whatever_the_blocks(
    table: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], int, list[int]],
    n_groups: int,
    data: st.DataObject,
    sortable: int,
) -> None:
    (keys, ids, weight), _, cuts = table
    group = np.array(
        data.draw(st.lists(st.integers(0, n_groups - 1), min_size=len(keys), max_size=len(keys)))
    )
    quotas = np.array(data.draw(st.lists(st.integers(0, 300), min_size=n_groups, max_size=n_groups)))
    blocks = blocks_of((group, keys, ids, weight), cuts)

    def counts_of(asked: Asked) -> Counts:
        return Counts.add(count(asked, g, k, w) for g, k, _, w in blocks)

    def collect(asked: Asked) -> Rows:
        found = [tuple(column[under(asked, rows[0], rows[1])] for column in rows) for rows in blocks]
        g, k, i, w = (np.concatenate(column) for column in zip(*found, strict=True))
        return g, k, i.take, w

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(top, "SORTABLE_ROWS", sortable)
        first = counts_of([(g, Prefix()) for g in range(n_groups)])
        found = find_group_tops(quotas, first, counts_of, collect)
    kept = keeps(found.thresholds, group, keys, ids.take)
    for g in range(n_groups):
        mine = group == g
        assert set(ids[mine & kept]) == plain(int(quotas[g]), (keys[mine], ids[mine], weight[mine]))
        assert found.weight[g] == weight[mine & kept].sum()
