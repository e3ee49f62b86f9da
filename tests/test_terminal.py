"""What is told of work under way where there is no terminal."""

from __future__ import annotations

import time

import pytest

from zpd_ray import terminal as progress


def test_a_log_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    clock = iter([0.0, 30.0, 60.0, 90.0, 130.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(progress, "say", said.append)
    log = progress._Log("measuring", 12_000)
    for _ in range(4):
        log.advance(1_500)
    assert said == [
        "measuring: 3,000 of 12,000, 3 min left, 50/s",
        "measuring: 6,000 of 12,000, 2 min left, 46/s",
    ]


def test_work_that_does_not_move_is_told_of_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.2)
    monkeypatch.setattr(progress, "say", said.append)
    with progress.progress("measuring stage 0", 40) as advance:
        time.sleep(0.5)
        advance(1)
        time.sleep(0.5)
    assert said[0].startswith("measuring stage 0: none of 40 yet, after ")
    assert said[-1].startswith("measuring stage 0: 1 of 40, ")
    told = len(said)
    assert 4 <= told <= 8
    time.sleep(0.3)
    assert len(said) == told  # its end is the end of the lines


def test_slow_work_is_told_in_seconds_per_item() -> None:
    assert [progress._rate(rate) for rate in (1234.5, 1.0, 0.25)] == ["1,234/s", "1/s", "4.0 s each"]


def test_work_without_an_end_in_sight_has_no_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "say", said.append)
    log = progress._Log("reading", None)
    log.advance(0)
    log.advance(7)
    assert said[0].startswith("reading: none yet, after ")
    assert said[1].startswith("reading: 7, ")
