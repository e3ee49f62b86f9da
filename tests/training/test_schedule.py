"""The learning rate over a stage and over a run."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from zpd_ray.config import TrainConfig
from zpd_ray.training.schedule import learning_rate

PEAK = 1e-3


def rates(stages: int = 1, steps: int = 200, **train: Any) -> list[float]:
    config = TrainConfig(learning_rate=PEAK, **train)
    return [
        learning_rate(config, stage, stages, step, steps) for stage in range(stages) for step in range(steps)
    ]


SCHEDULES = pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])


@SCHEDULES
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
def test_warms_up_linearly_then_never_rises(schedule: str, warmup: float) -> None:
    got = rates(schedule=schedule, warmup=warmup)
    peak = round(warmup * len(got))
    rising, falling = got[:peak], got[peak:]
    assert rising == pytest.approx([PEAK * (i + 0.5) / peak for i in range(peak)])
    assert all(later <= earlier for earlier, later in pairwise(falling))
    assert all(0 < rate <= PEAK for rate in got)


def test_cosine_and_linear_end_near_zero_and_constant_at_the_peak() -> None:
    assert rates(schedule="linear")[-1] < PEAK * 0.01
    assert rates(schedule="cosine")[-1] < PEAK * 0.01
    assert rates(schedule="constant")[-1] == PEAK


def test_cosine_and_linear_are_half_way_at_the_middle() -> None:
    for schedule in ("cosine", "linear"):
        got = rates(schedule=schedule, warmup=0.0)
        assert (got[99] + got[100]) / 2 == pytest.approx(PEAK / 2)


@SCHEDULES
def test_over_a_run_the_stages_are_one_schedule(schedule: str) -> None:
    whole = rates(stages=1, steps=300, schedule=schedule, schedule_over="run")
    assert rates(stages=3, steps=100, schedule=schedule, schedule_over="run") == pytest.approx(whole)


def test_over_a_run_nothing_jumps_where_a_stage_begins() -> None:
    got = rates(stages=3, steps=100, schedule="cosine", schedule_over="run")
    steps = [abs(later - earlier) for earlier, later in pairwise(got[20:])]
    assert max(steps) < 2 * PEAK * 3.2 / 2 / 300  # the steepest slope of a cosine over 300 steps


@SCHEDULES
def test_over_a_stage_each_begins_anew(schedule: str) -> None:
    got = rates(stages=3, steps=50, schedule=schedule, schedule_over="stage")
    assert got[:50] == got[50:100] == got[100:]
    assert got[:50] == rates(stages=1, steps=50, schedule=schedule)


def test_stages_of_different_lengths_join_without_a_gap() -> None:
    config = TrainConfig(learning_rate=PEAK, schedule="linear", warmup=0.0)
    end, start = learning_rate(config, 0, 2, 9, 10), learning_rate(config, 1, 2, 0, 1000)
    assert start == pytest.approx(PEAK / 2, rel=0.01)
    assert end == pytest.approx(PEAK / 2, rel=0.06)


@SCHEDULES
def test_a_stage_of_one_step_moves_the_weights(schedule: str) -> None:
    assert rates(steps=1, schedule=schedule)[0] > PEAK * 0.3
