"""The exact top of a budget, against a plain sort of everything."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from zpd_ray.selection import top
from zpd_ray.selection.keys import Keys, same_score
from zpd_ray.selection.top import DIGITS, EVERYTHING, NOTHING, Prefix, Top, file_starts, find_top, histogram

Rows = tuple[Keys, np.ndarray, np.ndarray]


def plain(budget: int, rows: Rows) -> set[str]:
    """Python's own sort by (key, id); items while their summed weight fits."""
    keys, ids, weights = rows
    chosen, spent = set(), 0
    for key, name, weight in sorted(zip(keys.tolist(), ids.tolist(), weights.tolist(), strict=True)):
        del key
        if spent + weight > budget:
            break
        chosen.add(name)
        spent += weight
    return chosen


def blocked(rows: Rows, cuts: list[int]) -> tuple[Callable, Callable]:
    """What the pipeline gives find_top: histograms added over blocks, rows collected from all of them."""
    keys, ids, weights = rows
    edges = [0, *sorted(cuts), len(keys)]
    blocks = [slice(start, end) for start, end in pairwise(edges)]

    def histogram_of(prefixes: list[Prefix]) -> list[np.ndarray]:
        return [sum(histogram(keys[b], weights[b], prefix) for b in blocks) for prefix in prefixes]

    def collect(prefix: Prefix) -> Rows:
        inside = [np.flatnonzero(prefix.contains(keys[b])) + b.start for b in blocks]
        found = np.concatenate(inside)
        return keys[found], ids[found].take, weights[found]

    return histogram_of, collect


def check(budget: int, rows: Rows, cuts: list[int]) -> Top:
    keys, ids, weights = rows
    found = find_top(budget, *blocked(rows, cuts))
    kept = found.threshold.keeps(keys, ids.take)
    assert set(ids[kept].tolist()) == plain(budget, rows)
    assert found.rows == kept.sum()
    assert found.weight == weights[kept].sum() <= max(budget, 0)
    if found.threshold != EVERYTHING:
        same = same_score(keys, found.threshold.key)
        assert (found.bought.tied, found.bought.drawn) == (same.sum(), (same & kept).sum())
    assert_array_equal(
        found.rows_per_digit, np.bincount((keys >> np.uint64(48)).astype(int), minlength=DIGITS)
    )
    return found


# Keys that differ in one digit alone, so that every level of the descent has ties to break.
KEY = st.one_of(
    st.integers(0, 3).flatmap(lambda digit: st.integers(0, 3).map(lambda value: value << (16 * digit))),
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, 2**64 - 1, 2**63, 2**48 - 1, 2**48]),
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[Rows, int, list[int]]:
    n = draw(st.integers(1, 40))
    keys = np.array(draw(st.lists(KEY, min_size=n, max_size=n)), dtype=np.uint64)
    names = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), min_size=1, max_size=4)
    ids = np.array(draw(st.lists(names, min_size=n, max_size=n, unique=True)), dtype=object)
    unit = draw(st.booleans())
    weight = st.just(1) if unit else st.integers(1, 50)
    weights = np.array(draw(st.lists(weight, min_size=n, max_size=n)), dtype=np.int64)
    budget = draw(st.integers(0, int(weights.sum()) + 5))
    return (keys, ids, weights), budget, draw(st.lists(st.integers(0, n), max_size=5))


@given(tables(), st.sampled_from([0, 1, 3, 100_000]))
@settings(max_examples=150)
def test_equals_a_plain_sort_whatever_ties_weights_budgets_and_blocks(
    table: tuple[Rows, int, list[int]], sortable: int
) -> None:
    rows, budget, cuts = table
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(top, "SORTABLE_ROWS", sortable)
        check(budget, rows, cuts)


def random_rows(n: int, seed: int, ties: int) -> Rows:
    rng = np.random.default_rng(seed)
    keys = rng.choice(rng.integers(0, 2**64, max(1, n // ties), dtype=np.uint64), n)
    ids = np.array([f"item-{i}" for i in rng.permutation(n)], dtype=object)
    return keys, ids, rng.integers(1, 700, n)


@pytest.mark.parametrize("ties", [1, 50, 5000])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999, 1.0, 1.5])
def test_a_larger_pool(ties: int, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top, "SORTABLE_ROWS", 64)
    rows = random_rows(5000, seed=ties, ties=ties)
    check(int(share * rows[2].sum()), rows, cuts=[1000, 1001, 4000])


def test_the_order_of_rows_makes_no_difference() -> None:
    keys, ids, weights = random_rows(3000, seed=9, ties=100)
    found = check(50_000, (keys, ids, weights), [])
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(keys))
        again = check(50_000, (keys[order], ids[order], weights[order]), [10, 500])
        assert (again.threshold, again.rows, again.weight) == (found.threshold, found.rows, found.weight)


def test_descends_to_the_last_digit_only_where_ties_force_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top, "SORTABLE_ROWS", 3)
    n = 200
    keys = np.full(n, 0x0001_0002_0003_0004, np.uint64)
    ids = np.array([f"{i:03d}" for i in range(n)], dtype=object)
    rows = keys, ids, np.ones(n, np.int64)
    histogram_of, collect = blocked(rows, [])
    depths: list[int] = []

    def spied(prefixes: list[Prefix]) -> list[np.ndarray]:
        depths.extend(prefix.depth for prefix in prefixes)
        return histogram_of(prefixes)

    found = find_top(77, spied, collect)
    assert depths == [0, 1, 2, 3]
    assert found.threshold == top.Threshold(0x0001_0002_0003_0004, "076")
    depths.clear()
    spread = np.arange(n, dtype=np.uint64) << np.uint64(48)  # every key has a first digit of its own
    histogram_of, collect = blocked((spread, *rows[1:]), [])
    assert find_top(77, spied, collect).rows == 77
    assert depths == [0]


def test_no_more_rows_than_may_be_sorted_are_brought_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top, "SORTABLE_ROWS", 10)
    rows = random_rows(4000, seed=3, ties=1)
    histogram_of, collect = blocked(rows, [])
    brought: list[int] = []

    def spied(prefix: Prefix) -> Rows:
        found = collect(prefix)
        brought.append(len(found[0]))
        return found

    find_top(int(rows[2].sum() // 3), histogram_of, spied)
    assert len(brought) == 1
    assert brought[0] <= 10


def test_a_budget_that_ends_with_the_first_item_too_large_buys_nothing() -> None:
    keys, ids = np.array([5, 9], np.uint64), np.array(["a", "b"], object)
    found = check(3, (keys, ids, np.array([4, 1])), [])
    assert (found.rows, found.weight) == (0, 0)


def test_one_item_more_for_one_more_of_budget() -> None:
    rows = random_rows(300, seed=4, ties=30)
    rows = rows[0], rows[1], np.ones(300, np.int64)
    kept = [
        find_top(budget, *blocked(rows, [])).threshold.keeps(rows[0], rows[1].take) for budget in range(301)
    ]
    assert [k.sum() for k in kept] == list(range(301))
    assert all((small <= large).all() for small, large in pairwise(kept))


def test_nothing_and_everything_are_what_they_say() -> None:
    keys = np.array([0, 1, 2**64 - 1], np.uint64)
    ids = np.array(["a", "\U0010fffe", "z"], object)
    assert not NOTHING.keeps(keys, ids.take).any()
    assert EVERYTHING.keeps(keys, ids.take).all()


def test_histograms_add_over_blocks_and_are_integers() -> None:
    keys, _, weights = random_rows(2000, seed=5, ties=3)
    whole = histogram(keys, weights, Prefix())
    halves = histogram(keys[:700], weights[:700], Prefix()) + histogram(keys[700:], weights[700:], Prefix())
    assert whole.dtype == np.int64
    assert_array_equal(whole, halves)
    assert whole.sum(axis=1).tolist() == [2000, weights.sum()]


def test_weights_beyond_the_precision_of_floats_are_summed_exactly() -> None:
    keys = np.zeros(3, np.uint64)
    weights = np.array([2**60, 1, 1])
    assert histogram(keys, weights, Prefix())[1, 0] == 2**60 + 2


@pytest.mark.parametrize("ties", [1, 50])
@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("budget", [1, 700, 2999, 5000])
def test_files_begin_where_ranks_say_and_are_of_bounded_size(ties: int, crowded: bool, budget: int) -> None:
    """Crowded: all keys share their first 20 bits, as those of scores between 0.24 and 0.25 do."""
    keys, ids, weights = random_rows(3000, seed=5, ties=ties)
    keys = (keys >> np.uint64(20)) | (np.uint64(0xABCDE) << np.uint64(44)) if crowded else keys
    weights = np.ones_like(weights)
    histogram_of, collect = blocked((keys, ids, weights), [500, 1700])
    found = find_top(budget, histogram_of, collect)
    starts = file_starts(found, 100, histogram_of)
    chosen = np.sort(keys[found.threshold.keeps(keys, ids.take)])
    assert_array_equal(starts.rows, np.searchsorted(chosen, starts.keys))
    sizes = np.diff(np.append(starts.rows, len(chosen)))
    assert sizes.sum() == len(chosen) == found.rows
    assert sizes.max() <= 200
    assert (sizes > 0).all()
