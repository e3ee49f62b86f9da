"""How much work an engine did, and at which rates."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from zpd_ray.engines.base import Pulse


class Meter:
    """Seconds and tokens by kind of work: prefill (references scored) and decode (tokens generated)."""

    def __init__(self) -> None:
        """Nothing done yet."""
        self._done: defaultdict[str, float] = defaultdict(float)
        self._pulse = Pulse()

    @property
    def pulse(self) -> Pulse:
        """Signs of life since the engine was loaded."""
        return self._pulse

    def begin(self, item_id: str) -> None:
        """This item is in hand now."""
        self._pulse = replace(self._pulse, at=str(item_id))

    def beat(self, items: int = 0) -> None:
        """A step was computed, with which so many items are done."""
        self._pulse = replace(self._pulse, items=self._pulse.items + items, steps=self._pulse.steps + 1)

    @contextmanager
    def timing(self, kind: str) -> Iterator[None]:
        """Count the seconds of a block as ``kind``."""
        started = time.perf_counter()
        yield
        self._done[f"{kind}_seconds"] += time.perf_counter() - started

    def count(self, **amounts: float) -> None:
        """Add to the amounts of these names."""
        for name, amount in amounts.items():
            self._done[name] += amount

    def take(self) -> dict[str, float]:
        """All amounts, which begin at zero again."""
        done, self._done = self._done, defaultdict(float)
        return dict(done)


# A rate = one amount / another.
RATES = {
    "prefill_tokens_per_second": ("prefill_tokens", "prefill_seconds"),
    "decode_tokens_per_second": ("decode_tokens", "decode_seconds"),
    "occupancy": ("step_tokens", "step_capacity"),  # tokens of a step / the most that it takes
    "queue_wait": ("queue_seconds", "requests"),  # seconds until a request's first step
    "cached_share": ("cached_tokens", "looked_up_tokens"),  # of prompts that other rollouts had computed
}


def rates(amounts: Mapping[str, float]) -> dict[str, float]:
    """The rates that follow from amounts of work, where there was any."""
    return {
        name: amounts.get(above, 0.0) / amounts[below]
        for name, (above, below) in RATES.items()
        if amounts.get(below)
    }
