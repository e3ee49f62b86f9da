"""Whole comparisons, by the command: what is shared, what is kept, what a killed one goes on with."""

from __future__ import annotations

import json
import shlex
import subprocess
from itertools import product
from pathlib import Path

import pytest

from tests.pipeline.processes import ROOT, Quickstart, call, command, run_here
from tests.test_readme import blocks

SELECTED, ADAPTER = "selected/part-000000.parquet", "adapter/adapter_model.safetensors"
SMALL = ("pool.path", "evaluation.path", "model.path", "pool.items_per_part", "train.")


def settings(quickstart: Quickstart) -> list[str]:
    """The quickstart in small, for all runs of a comparison."""
    small = [each for each in quickstart.overrides if each.startswith(SMALL)]
    pairs = [each.partition("=") for each in small]
    told = ", ".join(
        f'"{key}" = {value if value.isdecimal() else json.dumps(value)}' for key, _, value in pairs
    )
    return [f'set={{ {told}, "stages" = 2, "train.epochs" = 1, "select.replay" = 0.0 }}']


@pytest.mark.nightly
def test_the_comparison_of_the_readme_in_small(quickstart: Quickstart, tmp_path: Path) -> None:
    (told,) = (block for block in blocks("bash") if block.startswith("zpd-ray compare"))
    _, _, path, *options = shlex.split(told)
    few = ['methods=["random", "zpd", "ifd"]', f"output={tmp_path / 'out'}", "budgets=[0.3]"]
    done = run_here("compare", ROOT / path, *options[1::2], *few, *settings(quickstart))
    assert "random + cost of zpd" in done.stdout
    table = json.loads((tmp_path / "out/table.json").read_text())
    assert [line["method"] for line in table["lines"]] == ["random", "zpd", "ifd", "random + cost of zpd"]
    assert table["missing"] == []
    zpd, ifd = (tmp_path / f"out/runs/{name}/0.3/seed-0/run" for name in ("zpd", "ifd"))
    file = "stages/00/measurements/answers/part-000000.parquet"
    assert (zpd / file).samefile(tmp_path / "out/stage0/seed-0" / file)
    assert (ifd / file).samefile(zpd / file)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out/runs").rglob("*.parquet")}
    again = run_here("compare", ROOT / path, *options[1::2], *few, *settings(quickstart))
    assert "accuracy" in again.stdout
    assert done.stdout.endswith(again.stdout)  # Ray may have warned of something before
    assert before == {file: file.stat().st_mtime_ns for file in before}
    run_here("run", zpd / "config.toml", f"output={tmp_path / 'alone'}")  # with nothing shared
    for stage, file in product(("00", "01"), (SELECTED, ADAPTER)):
        path = f"stages/{stage}/{file}"
        assert (zpd / path).read_bytes() == (tmp_path / "alone" / path).read_bytes()
    assert done.stderr.count("starting the training job") == 1  # it trains the stages of all runs
    assert done.stderr.count("scoring actors with") == 1


@pytest.mark.nightly
def test_two_processes_share_the_runs_and_one_that_fails_stops_no_other(
    quickstart: Quickstart, tmp_path: Path
) -> None:
    """The second is begun while the first is at work; each run is made once."""
    methods = 'methods=["random", "zpd", "tests.compare.nothing:score"]'
    given = [methods, "budgets=[0.3]", "seeds=[0]", "tune={}", "cost_of=", f"output={tmp_path / 'out'}"]
    arguments = command("compare", ROOT / "examples/quickstart/compare.toml", *given, *settings(quickstart))
    with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as other:
        done = call(arguments)
        assert other.wait(timeout=900) == 2
    assert done.returncode == 2
    assert "nothing to select" in done.stderr
    table = json.loads((tmp_path / "out/table.json").read_text())
    assert [line["method"] for line in table["lines"]] == ["random", "zpd"]
    for run in (tmp_path / "out/runs").glob("*/0.3/seed-0/run"):
        lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
        trained = [line["stage"] for line in lines if line["step"] == "train"]
        assert trained == sorted(set(trained))
