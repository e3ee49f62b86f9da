"""Amounts of work and the rates that follow from them."""

from __future__ import annotations

import pytest

from zpd_ray.engines.usage import Meter, rates


def test_a_meter_counts_until_it_is_read() -> None:
    meter = Meter()
    with meter.timing("prefill"):
        meter.count(prefill_tokens=3)
    with meter.timing("prefill"):
        meter.count(prefill_tokens=4, decode_tokens=1)
    taken = meter.take()
    assert (taken["prefill_tokens"], taken["decode_tokens"]) == (7, 1)
    assert taken["prefill_seconds"] > 0
    assert meter.take() == {}


def test_rates_of_what_was_done_and_of_nothing_else() -> None:
    assert rates({}) == {}
    assert rates({"prefill_tokens": 10.0, "prefill_seconds": 0.0}) == {}
    known = rates({"prefill_tokens": 10, "prefill_seconds": 4, "step_tokens": 30, "step_capacity": 40})
    assert known == pytest.approx({"prefill_tokens_per_second": 2.5, "occupancy": 0.75})
    assert rates({"queue_seconds": 6, "requests": 3, "cached_tokens": 1, "looked_up_tokens": 4}) == {
        "queue_wait": 2.0,
        "cached_share": 0.25,
    }
