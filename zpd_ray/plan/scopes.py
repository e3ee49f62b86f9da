"""How many items of the pool each scope measures at each stage, and in how many rounds."""

from __future__ import annotations

from zpd_ray.config import Config
from zpd_ray.selection.budget import replay_share, resolve_budget
from zpd_ray.selection.probes import FIRST_PROBES, SHARE

POOL, ZONE, PROBE, RANDOM = "pool", "zone", "probe", "random"
SCOPES = (POOL, ZONE, PROBE, RANDOM)


def budget_items(config: Config, items: int, response_tokens: int) -> int:
    """Items that a stage trains on; of a budget in tokens as many as have the pool's mean length.

    Raises ZpdError when the budget is larger than the pool.
    """
    amount = resolve_budget(config.select.budget, items, response_tokens)
    if amount.unit == "items":
        return amount.value
    return max(1, round(amount.value * items / max(1, response_tokens)))


def measured_items(config: Config, scope: str, stage: int, items: int, response_tokens: int) -> int:
    """Items that are measured at a stage, at most; in scope probe where nothing has drifted.

    pool: all at every stage. zone, probe: all at stage 0; then the probes, and for zone candidates near the
    predicted zone. random: none, a draw needs no measurement.
    """
    if scope == RANDOM:
        return 0
    if scope == POOL or stage == 0:
        return items
    if scope == PROBE:
        return probes(config, items)
    amount = resolve_budget(config.select.budget, items, response_tokens)
    fresh = (amount.value - replay_share(amount, config.select.replay)) / amount.value
    budget = budget_items(config, items, response_tokens)
    return min(items, probes(config, items) + int(config.measure.candidates * fresh * budget))


def probes(config: Config, items: int) -> int:
    """Items of a pool that are never trained on, at most."""
    return min(config.measure.probes, int(SHARE * items))


def rounds(config: Config, scope: str, stage: int, items: int) -> tuple[int, int]:
    """Rounds of measuring and fits of a stage, at most: each has its own overhead.

    All at once in one. Probes are asked in rounds with a fit after each, until ability is known well enough;
    candidates in one more.
    """
    if scope == RANDOM:
        return 0, 0
    if scope == POOL or stage == 0:
        return 1, 1
    asked, count = FIRST_PROBES, 1
    while asked < probes(config, items):
        asked, count = 2 * asked, count + 1
    return count + (scope == ZONE), count + 1
