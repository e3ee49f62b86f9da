"""Means over seeds and items, and whether their intervals hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zpd_ray.compare.statistics import Interval, crossed, nested

SIZES = st.tuples(st.integers(1, 5), st.integers(2, 40))


@settings(max_examples=20)
@given(SIZES, st.integers(0, 99))
def test_the_mean_lies_within_and_the_same_seed_draws_the_same(sizes: tuple[int, int], seed: int) -> None:
    values = np.random.default_rng(seed).normal(0.2, 1.0, sizes)
    found = crossed(values, seed)
    assert found == crossed(values, seed)
    assert found.mean == pytest.approx(values.mean())
    assert found.low <= found.high
    assert values.min() <= found.low
    assert found.high <= values.max()


def test_what_never_differs_has_no_interval() -> None:
    for found in (crossed(np.full((3, 20), 0.25)), nested([np.full(20, 0.25)] * 3)):
        assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))


def test_words() -> None:
    assert [Interval(0.1, *ends).told for ends in ((0.01, 0.2), (-0.3, -0.1), (-0.1, 0.2), (0.0, 0.1))] == [
        "above",
        "below",
        *["not distinguishable from"] * 2,
    ]


def test_items_that_favour_a_method_in_every_seed_count_once() -> None:
    """Five seeds of the same items know no more of items than one; worlds of their own do."""
    items = np.random.default_rng(1).normal(0, 1, 400)
    same = np.tile(items, (5, 1))
    alone, all_five, worlds = crossed(items[None]), crossed(same), nested(list(same))
    assert _width(all_five) == pytest.approx(_width(alone), rel=0.1)
    assert _width(worlds) < 0.7 * _width(alone)


def _width(interval: Interval) -> float:
    return interval.high - interval.low


def _held(rng: np.random.Generator, seeds: int, items: int, spreads: tuple[float, float, float]) -> bool:
    """Whether the interval holds the mean of what was drawn: of seeds, of items, of both together."""
    of_seed, of_item, of_both = spreads
    values = rng.normal(0, of_seed, (seeds, 1)) + rng.normal(0, of_item, (1, items))
    found = crossed(values + rng.normal(0, of_both, (seeds, items)))
    return found.low <= 0 <= found.high


def test_intervals_hold_the_truth() -> None:
    """95 % of 60, and a chance of 1 in 1,000 below 48."""
    rng = np.random.default_rng(0)
    assert sum(_held(rng, 3, 60, (0.03, 0.3, 0.3)) for _ in range(60)) >= 48


@pytest.mark.nightly
@pytest.mark.parametrize("seeds", [1, 2, 3, 5, 10])
def test_how_often_they_do(seeds: int) -> None:
    """Where seeds differ little beside what an item does in a seed, as with right and wrong answers."""
    rng = np.random.default_rng(seeds)
    held = np.mean([_held(rng, seeds, 300, (0.005, 0.2, 0.4)) for _ in range(300)])
    print(f"{seeds} seeds: {held:.3f}")
    assert held > 0.9
