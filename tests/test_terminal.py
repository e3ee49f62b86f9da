"""What is told of work under way where there is no terminal."""

from __future__ import annotations

import pytest

from zpd_ray import terminal as progress


def test_a_log_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    clock = iter([0.0, 30.0, 60.0, 90.0, 130.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(progress, "say", said.append)
    with progress.progress("measuring", 12_000) as advance:
        for _ in range(4):
            advance(1_500)
    assert said == [
        "measuring: 3,000 of 12,000, 3 min left, 50/s",
        "measuring: 6,000 of 12,000, 2 min left, 46/s",
    ]


def test_work_without_an_end_in_sight_has_no_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "say", said.append)
    with progress.progress("reading", None) as advance:
        advance(0)
        advance(7)
    assert said[0] == "reading: 0, 0/s"
    assert said[1].startswith("reading: 7, ")
