"""From what was timed to rates; the timing itself: test_planning.py."""

from __future__ import annotations

import pytest

from zpd_ray.pipeline.plan.trial import Judged, Step, Trained, judging, training_line, worker_memory
from zpd_ray.plan.rates import Memory

STEP = Step(3.0, 0.5, 8, 2.0)


def trained(start: float, each: float, rows: int) -> Trained:
    """Rows that begin to be done after ``start`` seconds, told every tenth of them; a second to end."""
    marks = [(start + each * rows * tenth / 10, rows * tenth / 10) for tenth in range(1, 10)]
    return Trained(start + each * rows + 1.0, rows, marks)


def test_the_start_of_a_stage_is_told_from_its_rows() -> None:
    (first, later), line = training_line([trained(8.0, 0.01, 1000), trained(2.0, 0.01, 1000)], STEP, 1)
    assert line.at(1000).seconds == pytest.approx(10.0)
    assert (first, later) == pytest.approx((9.0, 3.0))
    assert line.each_se == pytest.approx(0, abs=1e-9)


def test_rates_that_differ_have_an_error() -> None:
    _, line = training_line([trained(8.0, 0.01, 1000), trained(2.0, 0.02, 1000)], STEP, 1)
    assert 0.01 < line.each < 0.02
    assert line.each_se > 0.001


def test_rows_that_were_done_too_soon_are_taken_from_the_step_that_was_tried() -> None:
    (start, _), line = training_line([Trained(2.0, 8, [])], STEP, 2)
    assert line.each == line.each_se == 0.5 / 8 / 2
    assert start == pytest.approx(2.0 - 8 * line.each)


def test_nothing_is_trained() -> None:
    (first, later), line = training_line([], None, 1)
    assert first == later == line.at(100).seconds == 0


def test_judging_costs_what_it_did_and_more_items_more() -> None:
    fit, select = judging(Judged(2.0, 3.0, 1000), Judged(1.0, 1.5, 1000), each=1e-4)
    assert fit.of(0).at(1000).seconds == pytest.approx(2.0)
    assert select.of(1).at(1000).seconds == pytest.approx(1.5)
    assert fit.of(1).at(11_000).seconds == pytest.approx(2.0)
    assert select.of(0).at(11_000).seconds == pytest.approx(3.0 + 4 * 1.0)


def test_the_memory_of_a_worker_is_where_it_computes() -> None:
    assert worker_memory(STEP, on_gpu=False, gpu_has=0.0) == Memory(2.0)
    assert worker_memory(STEP, on_gpu=True, gpu_has=80.0) == Memory(0.0, 2.0, 80.0)
    assert worker_memory(None, on_gpu=True, gpu_has=80.0) == Memory()
