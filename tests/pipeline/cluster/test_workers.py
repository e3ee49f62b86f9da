"""Which runs of a comparison share actors: those that would have started the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import simulated_values
from zpd_ray.config_file import validate
from zpd_ray.pipeline.cluster.workers import scoring_setup, training_setup
from zpd_ray.rundir import Run, Store


def run_of(place: Path, name: str, **sections: Any) -> Run:
    config = validate(simulated_values(place, n=1, output=str(place / name), **sections))
    return Run(config, Store(config.output))


OWN_ENGINE = {"engine": {"name": "own_parts:Engine"}}


@pytest.mark.parametrize(
    ("common", "more", "shared"),
    [
        ({}, {}, True),
        ({}, {"select": {"method": "random"}}, True),
        ({}, {"seed": 7}, False),
        ({}, {"measure": {"rollouts": 9}}, False),
        (OWN_ENGINE, {}, False),  # it may read whatever a config holds
    ],
)
def test_runs_share_scoring_actors_where_the_engine_would_read_the_same(
    tmp_path: Path, common: dict[str, Any], more: dict[str, Any], shared: bool
) -> None:
    runs = run_of(tmp_path, "a", **common), run_of(tmp_path, "b", **common, **more)
    one, other = (scoring_setup(run, run.model(0)) for run in runs)
    assert (one == other) is shared


@pytest.mark.parametrize(("function", "shared"), [(None, True), ("own_loop:loop", False)])
def test_runs_share_a_training_job_where_the_loop_is_ours(
    tmp_path: Path, function: str | None, shared: bool
) -> None:
    train = {"method": "lora"} | ({"function": function} if function else {})
    one, other = (training_setup(run_of(tmp_path, name, train=train)) for name in "ab")
    assert (one == other) is shared
