"""Results for programs: ``--json`` and ``--quiet`` on real runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from click.testing import Result
from typer.testing import CliRunner

from tests.pipeline.conftest import simulated_file
from tests.pipeline.processes import Quickstart
from zpd_ray.cli.app import app
from zpd_ray.config import Config
from zpd_ray.rundir.records import load_fit, load_metrics, load_selection
from zpd_ray.rundir.store import Store

STEPS = ("measure", "fit", "select", "evaluate")


def invoke(*arguments: str) -> Result:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done


def test_every_step_tells_the_values_of_the_file_that_closes_it(local_ray: None, tmp_path: Path) -> None:
    config = str(simulated_file(tmp_path, n=400, stages=1).config)
    done = json.loads(invoke("ingest", config, "--json").stdout)
    assert (done["step"], done["stage"]) == ("ingest", None)
    assert done["result"]["pool"]["items"] == 400
    assert done["result"]["evaluation"] is None
    assert "sources" not in done["result"]["pool"]
    for step in STEPS:
        done = json.loads(invoke(step, config, "--json").stdout)
        assert (done["step"], done["stage"]) == (step, 0)
        assert done["result"] == json.loads(Path(done["file"]).read_text())
    quiet = invoke("select", config, "--quiet")
    assert quiet.stdout.startswith("stage 0: select: ")
    assert "note" not in quiet.stderr


def test_the_closing_table_says_what_the_files_of_the_run_say(quickstart: Quickstart) -> None:
    store = Store(str(quickstart.output))
    arguments = [word for word in quickstart.command(quickstart.output)[3:]]
    told = json.loads(invoke(*arguments, "--json", "--quiet").stdout)
    fit = load_fit(store, 1).ability
    assert told["method"] == "zpd"
    assert told["base"]["accuracy"] == load_metrics(store, None).accuracy
    assert told["result"] == f"{quickstart.output}/stages/01/adapter"
    assert Path(told["result"]).is_dir()
    for stage, row in enumerate(told["stages"]):
        chosen, standing = load_selection(store, f"stages/{stage:02d}"), fit.at(stage)
        assert (row["stage"], row["theta"], row["se"]) == (stage, standing.theta, standing.se)
        assert (row["gain"], row["gain_se"]) == (standing.gain, standing.gain_se)
        assert row["untrained_right"] == standing.right
        assert (row["selected"], row["replay"]) == (chosen.selected, chosen.replay)
        assert row["groups"] == chosen.groups
        assert row["mean_p"] == chosen.mean_p
        assert row["accuracy"] == load_metrics(store, stage).accuracy
        assert row["evaluation_nll"] == load_metrics(store, stage).nll
        assert row["cost"]["training_seconds"] > 0
        assert row["cost"]["prefilled"] > 0
    costs = [row["cost"] for row in told["stages"]]
    assert told["cost"] == pytest.approx({key: sum(cost[key] for cost in costs) for key in costs[0]})


def test_a_run_that_trains_nothing_has_no_result(plain_run: tuple[Config, Store], tmp_path: Path) -> None:
    config, _ = plain_run
    path = tmp_path / "run.toml"
    path.write_text(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))
    done = invoke("run", str(path), "--json")
    told: dict[str, Any] = json.loads(done.stdout)
    assert "is finished" in done.stderr
    assert told["result"] is None
    assert told["base"]["accuracy"] is None
    assert [row["accuracy"] for row in told["stages"]] == [None, None]
    drawn = invoke("run", str(path), "--quiet")
    assert drawn.stderr == ""
    assert "untrained" in drawn.stdout
    assert f"{told['stages'][1]['theta']:.2f} +- {told['stages'][1]['se']:.2f}" in drawn.stdout
