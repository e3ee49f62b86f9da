"""A training loop of the user's: what it gets, what it gives back, and what it is told when it errs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import zpd_ray
from tests.pipeline.conftest import table_of
from tests.pipeline.processes import EXAMPLES, Quickstart, call, command
from tests.pipeline.train.test_train import Make, fit, make, model_dir  # noqa: F401 (fixtures)
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.train.job import close_train_job
from zpd_ray.pipeline.train.stages import _check_result
from zpd_ray.rundir.begin import check_inputs
from zpd_ray.rundir.store import Store


@pytest.mark.parametrize("loop", ["plain_loop:loop", "trl_loop:loop"])
def test_the_examples_train_stage_after_stage(quickstart: Quickstart, tmp_path: Path, loop: str) -> None:
    """On the small world; what was trained on has become easier than the rest."""
    if loop.startswith("trl"):
        pytest.importorskip("trl")
    config, run = EXAMPLES / "own_loop/run.toml", tmp_path / "run"
    overrides = [text for text in quickstart.overrides if not text.startswith("train.")]
    arguments = command("run", config, *overrides, f"train.function={loop}", f"output={run}")
    done = call(arguments, env=os.environ | {"PYTHONPATH": str(config.parent)})
    assert done.returncode == 0, done.stderr
    store = Store(str(run))
    for stage in (0, 1):
        told = store.read_json(f"stages/{stage:02d}/train.json")
        assert told["items"] == 32
        assert told["rows"] == 320
        assert told["loss"] > 0
    before, after = (table_of(store, f"stages/{stage:02d}/measurements") for stage in (0, 1))
    fell = before["nll"].to_numpy() - after["nll"].to_numpy()
    chosen = set(table_of(store, "stages/00/selected")["item_id"].to_pylist())
    trained = [item in chosen for item in before["item_id"].to_pylist()]
    assert fell[trained].mean() > max(0.0, fell.mean())


@pytest.mark.parametrize(
    ("loop", "told"),
    [
        ("forgetful", "the training loop left stage 0 without a word; .* call stage.report"),
        ("mistaken", r"KeyError: .*\['input_ids', 'labels'\] of stage 0"),
        ("hasty", "its workers left before the stage was finished"),
    ],
)
def test_a_loop_that_errs_is_told_at_once(local_ray: None, make: Make, loop: str, told: str) -> None:  # noqa: F811
    try:
        with pytest.raises(ZpdError, match=f"^training of stages/00 failed: {told}.*run again"):
            fit(make(function=f"tests.pipeline.loops:{loop}"))
    finally:
        close_train_job()


def test_a_loop_that_is_not_there_is_refused_before_anything_starts(make: Make) -> None:  # noqa: F811
    config, _ = make(function="tests.pipeline.loops:absent")
    with pytest.raises(ZpdError, match=r"loops has no 'absent'; the nearest are"):
        check_inputs(config, Store(config.output))


def test_outside_of_a_training_job_there_are_no_stages() -> None:
    with pytest.raises(ZpdError, match=r"train.function = 'my.module:loop'"):
        next(zpd_ray.stages())


@pytest.mark.parametrize(("method", "expected"), [("lora", "adapter_config.json"), ("full", "config.json")])
def test_a_report_without_a_result_is_refused(method: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ZpdError, match=rf"{expected}.*|notes.txt.*{expected}"):
        _check_result(method, tmp_path)
