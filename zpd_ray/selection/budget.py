"""Budgets: a share of the pool, a number of items, or a number of response tokens, per stage."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from zpd_ray.config import Budget
from zpd_ray.errors import ZpdError


class Amount(NamedTuple):
    """So many items, or so many response tokens."""

    value: int
    unit: str  # "items" or "tokens"


def resolve_budget(budget: Budget, pool_items: int, pool_tokens: int) -> Amount:
    """The budget of a stage as whole items or tokens; a fraction is rounded down, but not to 0.

    Raises ZpdError when it is larger than the pool.
    """
    if budget.fraction is not None:
        return Amount(max(1, _share(budget.fraction, pool_items)), "items")
    amount = (
        Amount(budget.items, "items") if budget.items is not None else Amount(budget.tokens or 0, "tokens")
    )
    have = pool_items if amount.unit == "items" else pool_tokens
    if amount.value > have:
        raise ZpdError(
            f"select.budget.{amount.unit} = {amount.value} is more than the pool has ({have} {amount.unit}); "
            "lower it, or give select.budget.fraction"
        )
    return amount


def check_anchors_left(amount: Amount, stages: int, pool_items: int, pool_tokens: int) -> None:
    """Ability stands on items that were never trained on: some must be left at the last stage.

    Raises ZpdError when the stages before it would train on the whole pool.
    """
    have = pool_items if amount.unit == "items" else pool_tokens
    if amount.value * (stages - 1) >= have:
        raise ZpdError(
            f"{stages} stages of {amount.value} {amount.unit} train on the whole pool ({have} {amount.unit}) "
            "before the last one, and leave no item to estimate ability from; lower select.budget or stages"
        )


def check_buys_something(amount: Amount, shortest: int) -> None:
    """Raises ZpdError when not even the shortest response of the pool, in tokens, fits the budget."""
    if amount.unit == "tokens" and amount.value < shortest:
        raise ZpdError(
            f"select.budget.tokens = {amount.value} buys nothing: the shortest response of the pool has "
            f"{shortest} tokens; raise it"
        )


def replay_share(amount: Amount, replay: float) -> int:
    """What of the budget is spent on mastered items, in the unit of the budget, rounded down."""
    return _share(replay, amount.value)


def _share(share: float, whole: int) -> int:
    """Rounded down, with ``share`` as it is written: 0.29 of 100 is 29, though its float is below 0.29."""
    return int(Decimal(str(share)) * whole)
