"""One screen."""

from __future__ import annotations

import json

import pytest

from tests.plan.conftest import EVALUATION, plan_of
from zpd_ray.plain import to_json
from zpd_ray.plan.show import draw


def test_a_plan_is_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    draw(plan_of(evaluation=EVALUATION, stages=8))
    told = capsys.readouterr().out
    table = told.partition("items measured")[0].splitlines()
    assert len(told.splitlines()) <= 40
    assert max(len(line.rstrip()) for line in table) <= 80
    for word in (
        "zone",
        "random",
        "selecting",
        "1-7",
        "CPU-hours",
        "a 800,000",
        "it fits",
        "warning: a warning",
        "+-",
    ):
        assert word in told


def test_the_same_numbers_as_json() -> None:
    planned = plan_of()
    read = json.loads(to_json(planned))
    assert read["scopes"][0]["whole"]["seconds"] == planned.scopes[0].whole.seconds
    assert read["scopes"][0]["ratio"] == planned.scopes[0].ratio
    assert read["room"]["problems"] == []
