"""Budgets as whole items or tokens."""

from __future__ import annotations

import pytest

from zpd_ray.config import Budget
from zpd_ray.errors import ZpdError
from zpd_ray.selection.budget import Amount, replay_share, resolve_budget


def test_a_fraction_is_rounded_down_but_not_to_nothing() -> None:
    assert resolve_budget(Budget(fraction=0.15), 1999, 0) == Amount(299, "items")
    assert resolve_budget(Budget(fraction=1e-9), 10, 0) == Amount(1, "items")
    assert resolve_budget(Budget(fraction=1.0), 7, 0) == Amount(7, "items")


@pytest.mark.parametrize("pool", [100, 1000])
def test_a_fraction_of_whole_per_cents_is_that_many_per_cent(pool: int) -> None:
    got = [resolve_budget(Budget(fraction=k / 100), pool, 0).value for k in range(1, 101)]
    assert got == [k * pool // 100 for k in range(1, 101)]  # 0.29 * 100 is 28.999999999999996 in floats


def test_items_and_tokens_are_taken_as_given_up_to_all_there_is() -> None:
    assert resolve_budget(Budget(items=10), 10, 55) == Amount(10, "items")
    assert resolve_budget(Budget(tokens=55), 10, 55) == Amount(55, "tokens")


@pytest.mark.parametrize(
    ("budget", "have"), [(Budget(items=11), "10 items"), (Budget(tokens=56), "55 tokens")]
)
def test_more_than_the_pool_has_is_refused_with_both_numbers(budget: Budget, have: str) -> None:
    with pytest.raises(
        ZpdError, match=rf"select\.budget\.\w+ = (11|56) is more than the pool has \({have}\)"
    ):
        resolve_budget(budget, 10, 55)


def test_replay_takes_its_share_rounded_down() -> None:
    assert replay_share(Amount(100, "items"), 0.29) == 29
    assert replay_share(Amount(3, "items"), 0.25) == 0
    assert replay_share(Amount(1000, "tokens"), 0.0) == 0
