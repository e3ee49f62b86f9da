"""How many items of the pool each scope measures at each stage."""

from __future__ import annotations

from zpd_ray.config import Config
from zpd_ray.selection.budget import resolve_budget

POOL, ZONE, PROBE, RANDOM = "pool", "zone", "probe", "random"
SCOPES = (POOL, ZONE, PROBE, RANDOM)
PROBE_SHARE = 0.04  # of the pool at most
PROBES = 2000  # and at most so many
CANDIDATES = 4.0  # of "zone": so many times the budget


def budget_items(config: Config, items: int, response_tokens: int) -> int:
    """Items that a stage trains on; of a budget in tokens as many as have the pool's mean length.

    Raises ZpdError when the budget is larger than the pool.
    """
    amount = resolve_budget(config.select.budget, items, response_tokens)
    if amount.unit == "items":
        return amount.value
    return max(1, round(amount.value * items / max(1, response_tokens)))


def measured_items(scope: str, stage: int, items: int, budget: int) -> int:
    """Items that are measured at a stage.

    pool: all at every stage. zone, probe: all at stage 0; then the probes, and for zone candidates near the
    predicted zone. random: none, a draw needs no measurement.
    """
    if scope == RANDOM:
        return 0
    if scope == POOL or stage == 0:
        return items
    probes = min(PROBES, int(PROBE_SHARE * items))
    return min(items, probes + int(CANDIDATES * budget)) if scope == ZONE else probes
