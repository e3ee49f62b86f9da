"""A plan from a run in small."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests import tiny
from tests.pipeline.conftest import questions, simulated_file, simulated_values, write_jsonl
from tests.pipeline.processes import Quickstart, command, flags, run_here
from zpd_ray.cli.app import app
from zpd_ray.cli.options import INTERRUPTED
from zpd_ray.config_file import validate
from zpd_ray.errors import ZpdError
from zpd_ray.opening import open_run
from zpd_ray.pipeline.plan.planning import make_plan
from zpd_ray.plan.estimate import Plan
from zpd_ray.report.cost import costs
from zpd_ray.rundir.begin import recorded_run

pytestmark = pytest.mark.usefixtures("local_ray")


def plan_of(values: dict[str, Any], **options: Any) -> Plan:
    return make_plan(*open_run(validate(values)), time.monotonic(), **{"seconds": 0.1, **options})


def in_json(config: Path, *options: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["plan", str(config), "--json", *options])
    assert done.exit_code == 0, done.stderr
    planned: dict[str, Any] = json.loads(done.stdout)
    return planned


def test_a_plan_leaves_nothing_behind(tmp_path: Path) -> None:
    config = simulated_file(tmp_path, n=300, stages=1).config
    planned = in_json(config, "--seconds", "0.1")
    assert planned["pool"]["items"] == 300
    assert [scope["scope"] for scope in planned["scopes"]] == ["pool", "zone", "probe", "random"]
    assert planned["scopes"][0]["whole"]["seconds"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pool.jsonl", "run.toml"]


@pytest.mark.nightly
def test_a_pool_that_was_read_is_not_read_again(tmp_path: Path) -> None:
    values = simulated_values(tmp_path, n=600)
    first = plan_of(values, ingest_first=True)
    assert (tmp_path / "out" / "pool.json").exists()
    (tmp_path / "pool.jsonl").unlink()
    again = plan_of(values)
    assert again.pool == first.pool
    assert again.before["reading the pool"].seconds == 0


@pytest.mark.nightly
def test_training_is_timed_on_real_steps(tmp_path: Path) -> None:
    model = tiny.build_model(tmp_path / "model", layers=1)
    write_jsonl(tmp_path / "pool.jsonl", questions(120))
    values = {
        "output": str(tmp_path / "out"),
        "stages": 2,
        "pool": {"path": str(tmp_path / "pool.jsonl"), "items_per_part": 40},
        "model": {"path": str(model)},
        "select": {"budget": {"items": 24}},
        "train": {"batch_size": 8, "micro_batch_size": 4, "epochs": 2},
    }
    planned = plan_of(values)
    pool, _zone, _probe, random = planned.scopes
    assert pool.total.read == 2 * planned.pool.tokens
    assert pool.stages[0].trained == round(24 / 120 * planned.pool.response_tokens * 2)
    assert pool.stages[0].training.seconds > pool.stages[1].training.seconds > 0  # workers start once
    assert random.ratio is not None
    assert random.ratio < pool.ratio  # type: ignore[operator]
    assert planned.actor.main > 0.1
    assert planned.worker.main > 0.1
    assert planned.before["trying a training step"].seconds > 0


def test_a_budget_that_leaves_no_anchors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ZpdError, match="leave no item to estimate ability from"):
        plan_of(simulated_values(tmp_path, n=50, select={"budget": {"fraction": 1.0}}))
    assert not list(tmp_path.glob("out*"))


@pytest.mark.nightly
def test_ctrl_c_leaves_nothing_behind(address: str, tmp_path: Path) -> None:
    config = simulated_file(tmp_path, n=300, cluster={"address": address}).config
    out = tmp_path / "out.plan"
    # A shell may have started the tests in the background, where SIGINT is ignored and inherited.
    heard = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    started = subprocess.Popen(command("plan", config), stderr=subprocess.DEVNULL, preexec_fn=heard)
    with started as process:
        until(lambda: any(path.name.startswith("part-") for path in out.rglob("*")))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == INTERRUPTED
    until(lambda: not out.exists())


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_somebodys_files_are_not_replaced(tmp_path: Path) -> None:
    """Where a plan would put its run in small."""
    (tmp_path / "out.plan").mkdir()
    (tmp_path / "out.plan" / "letter.txt").write_text("dear")
    with pytest.raises(ZpdError, match=r"out\.plan is not empty and holds no run \(found letter.txt\)"):
        plan_of(simulated_values(tmp_path, n=50))
    assert (tmp_path / "out.plan" / "letter.txt").exists()


@pytest.mark.nightly
def test_a_plan_is_near_what_the_run_took(quickstart: Quickstart, tmp_path: Path) -> None:
    """Within a factor of two: the machine may be busy with something else in between."""
    overrides = (*quickstart.overrides, f"output={tmp_path / 'out'}")
    planned = in_json(quickstart.config, *flags(*overrides))
    began = time.monotonic()
    run_here("run", quickstart.config, *overrides)
    took, total = time.monotonic() - began, planned["scopes"][0]["total"]
    spent = costs(recorded_run(str(tmp_path / "out")))
    for planned_seconds, seconds in (
        (planned["scopes"][0]["whole"]["seconds"], took),
        (total["selecting"]["seconds"], sum(each.selecting_seconds for each in spent)),
        (total["training"]["seconds"], sum(each.training_seconds for each in spent)),
    ):
        print(f"planned {planned_seconds:.1f} s, took {seconds:.1f} s")
        assert seconds / 2 < planned_seconds < 2 * seconds
    assert total["read"] == sum(each.prefilled for each in spent)
    assert total["trained"] == pytest.approx(sum(each.trained for each in spent), rel=0.1)
