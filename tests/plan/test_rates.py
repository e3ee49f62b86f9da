"""A line through what was timed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zpd_ray.plan.rates import Line, Seconds, fit_line, in_step, mean_line

positive = st.floats(0.01, 1e4)
points = st.lists(st.tuples(positive, positive), min_size=1, max_size=12)


@settings(deadline=None)  # the machine may be busy
@given(points, positive, positive)
def test_more_work_never_takes_less(timed: list[tuple[float, float]], one: float, other: float) -> None:
    line = fit_line(*zip(*timed, strict=True))
    assert line.fixed >= 0
    assert line.each >= 0
    assert line.at(min(one, other)).seconds <= line.at(max(one, other)).seconds


@settings(deadline=None)  # the machine may be busy
@given(st.floats(0, 10), st.floats(0.001, 10), st.lists(st.floats(1, 1000), min_size=2, max_size=8))
def test_a_line_is_found_again(fixed: float, each: float, amounts: list[float]) -> None:
    amounts = [*amounts, 2 * max(amounts)]
    line = fit_line(amounts, [fixed + each * amount for amount in amounts])
    assert line.at(5000).seconds == pytest.approx(fixed + each * 5000, rel=1e-6)
    assert line.at(5000).se == pytest.approx(0, abs=1e-4 * line.at(5000).seconds)


def test_errors_are_those_of_repeated_timings() -> None:
    random, amounts = np.random.default_rng(0), np.array([100, 200, 400, 800, 100, 200, 400, 800])
    lines = [fit_line(amounts, 2 + 0.01 * amounts + random.normal(0, 0.2, 8)) for _ in range(400)]
    for amount in (400, 3000):
        found = [line.at(amount) for line in lines]
        spread = np.std([each.seconds for each in found])
        assert np.sqrt(np.mean([each.se**2 for each in found])) == pytest.approx(spread, rel=0.15)


def test_a_rate_of_blocks_and_its_error() -> None:
    random = np.random.default_rng(0)
    lines = [mean_line(0.5 * rows * random.normal(1, 0.1, 8), rows) for rows in [np.full(8, 20.0)] * 400]
    assert np.mean([line.each for line in lines]) == pytest.approx(0.5, rel=0.01)
    assert np.mean([line.each_se for line in lines]) == pytest.approx(
        np.std([line.each for line in lines]), rel=0.1
    )


def test_no_work_takes_no_time() -> None:
    assert Line(3.0, 1.0).at(0) == Seconds(0.0)


def test_what_stands_on_one_rate_errs_together() -> None:
    one = Seconds(10.0, 2.0)
    assert in_step([one, one]) == Seconds(20.0, 4.0)
    assert (one + one).se == pytest.approx(8**0.5)
