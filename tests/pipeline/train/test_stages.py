"""A training loop of the user's: what it gets, what it gives back, and what it is told when it errs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray.train

import zpd_ray
from tests.pipeline.conftest import table_of
from tests.pipeline.processes import EXAMPLES, SELECTED, Quickstart, run_here
from tests.pipeline.train.test_train import Make, fit, make, model_dir  # noqa: F401 (fixtures)
from zpd_ray import engines
from zpd_ray.config import ClusterConfig, Config
from zpd_ray.config_file import load_config
from zpd_ray.engines import ModelRef
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.train import stages
from zpd_ray.pipeline.train.controller import StageTask
from zpd_ray.pipeline.train.job import _why_it_ended
from zpd_ray.pipeline.train.lines import Lines
from zpd_ray.pipeline.train.stages import _check_result, each_stage
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.begin import check_inputs


def run_loop(
    loop: str, stages: int, quickstart: Quickstart, run: Path, monkeypatch: pytest.MonkeyPatch
) -> Store:
    """The small world, trained by an example of a loop from its first selection on; what each stage told."""
    config, run = EXAMPLES / "own_loop/run.toml", quickstart.partly(run, {"00": SELECTED})
    overrides = [text for text in quickstart.overrides if not text.startswith("train.")]
    monkeypatch.syspath_prepend(config.parent)  # on the PYTHONPATH of the tests' Ray it is, too
    run_here("run", config, *overrides, f"stages={stages}", f"train.function={loop}", f"output={run}")
    store = Store(str(run))
    for stage in range(stages):
        told = store.read_json(f"stages/{stage:02d}/train.json")
        assert told["items"] == 32
        assert told["rows"] == 320
        assert told["loss"] > 0
    return store


def assert_the_trained_became_easier(before: pa.Table, after: np.ndarray, store: Store) -> None:
    """Easier than the rest; before: rows of the answers, after: their NLL now."""
    fell = before["nll"].to_numpy() - after
    chosen = set(table_of(store, "stages/00/selected")["item_id"].to_pylist())
    trained = [item in chosen for item in before["item_id"].to_pylist()]
    assert fell[trained].mean() > max(0.0, fell.mean())


def test_the_example_of_a_loop_trains(
    quickstart: Quickstart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = run_loop("plain_loop:loop", 1, quickstart, tmp_path / "run", monkeypatch)
    config = load_config(store.path("config.toml"))
    trained = engines.load(config, ModelRef(config.model.path, store.path("stages/00/adapter"), 1))
    scores = trained.score(table_of(store, "pool"))
    assert_the_trained_became_easier(
        table_of(store, "stages/00/measurements/answers"), np.array(scores.nll), store
    )


@pytest.mark.nightly
@pytest.mark.parametrize("loop", ["plain_loop:loop", "trl_loop:loop"])
def test_the_examples_train_stage_after_stage(
    quickstart: Quickstart, tmp_path: Path, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if loop.startswith("trl"):
        pytest.importorskip("trl")
    store = run_loop(loop, 2, quickstart, tmp_path / "run", monkeypatch)
    before, after = (table_of(store, f"stages/{stage:02d}/measurements/answers") for stage in (0, 1))
    assert_the_trained_became_easier(before, after["nll"].to_numpy(), store)


@pytest.mark.parametrize(
    ("loop", "told"),
    [
        pytest.param(
            "forgetful",
            "the training loop left stage 0 without a word; .* call stage.report",
            marks=pytest.mark.nightly,
        ),
        ("mistaken", r"KeyError: .*\['input_ids', 'labels'\] of stage 0"),
        pytest.param("hasty", "its workers left before the stage was finished", marks=pytest.mark.nightly),
    ],
)
def test_a_loop_that_errs_is_told_at_once(local_ray: None, make: Make, loop: str, told: str) -> None:  # noqa: F811
    with pytest.raises(ZpdError, match=f"^training of stages/00 failed: {told}.*run again"):
        fit(make(function=f"tests.pipeline.loops:{loop}"))


def task(config: Config, stage: int = 0) -> StageTask:
    model = ModelRef(config.model.path, None, stage)
    return StageTask(config, Store(config.output), model, f"stages/{stage:02d}", 3, [3], [None], turn=stage)


def test_a_stage_that_is_not_reported_is_refused_when_the_next_is_asked_for(make: Make) -> None:  # noqa: F811
    config, _ = make()
    given = each_stage(lambda after: task(config), 0, 1)
    next(given)
    with pytest.raises(ZpdError, match="left stage 0 without a word"):
        next(given)


def test_a_stage_that_was_closed_before_the_loop_began_is_passed_over(make: Make) -> None:  # noqa: F811
    config, store = make()
    store.write_json("stages/00/train.json", {})
    tasks = {-1: task(config, 0), 0: task(config, 1), 1: None}
    given = each_stage(tasks.__getitem__, 0, 1)
    stage = next(given)
    assert (stage.number, stage.rows) == (1, 3)
    stage._reported = True
    assert list(given) == []


@pytest.mark.parametrize("reference", ["none", "prompt"])
def test_a_loop_that_asks_for_tokens_where_items_have_no_responses_is_told(
    make: Make,  # noqa: F811
    reference: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stages, "with_texts", lambda run, stage, shard: shard)
    config, _ = make(function="tests.pipeline.loops:mistaken")
    config = config.model_copy(update={"pool": config.pool.model_copy(update={"reference": reference})})
    messages = [[{"role": "user", "content": "How many?", "more": None}]] * 3
    empty = {
        "response": [""] * 3,
        "response_more": [None] * 3,
        "tools": [None] * 3,
    }  # as ``selected.due`` has it
    rows = pa.table({"messages": messages, **empty})

    class Shard:
        def iter_batches(self, **how: object) -> list[pa.Table]:
            return [rows]

    stage = next(each_stage(lambda after: replace(task(config), shards=[Shard()]), 0, 1))
    assert next(stage.iter_batches(3)) is rows
    with pytest.raises(ZpdError, match=f"reference = '{reference}'.*no responses.*take stage.iter_batches"):
        next(stage.iter_tokens())


def test_files_of_a_checkpoint_that_would_replace_one_another_are_refused(
    make: Make,  # noqa: F811
    tmp_path: Path,
) -> None:
    config, _ = make()
    (tmp_path / "deep").mkdir()
    for name in ("weights.safetensors", "deep/b", ".metadata.json"):
        (tmp_path / name).touch()
    asked: list[list[str]] = []

    def claim(names: list[str]) -> dict[str, int]:
        asked.append(names)
        return {"weights.safetensors": 0}

    stage = next(each_stage(lambda after: task(config), 0, 1, Lines(claim=claim)))
    with pytest.raises(ZpdError, match=r"got weights.safetensors from worker 0, and from worker 0: only one"):
        stage.save_checkpoint(tmp_path)
    assert asked == [["deep/b", "weights.safetensors"]]


@pytest.mark.parametrize(
    ("address", "rank", "said", "expected", "told"),
    [
        ("auto", 0, None, False, 0),
        ("auto", 0, "a notice", True, 1),
        ("auto", 1, "a notice", True, 0),  # worker 0 tells the controller, once
        ("local", 0, "a notice", False, 0),
    ],
)
def test_a_stage_is_told_that_a_node_will_go(
    make: Make,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    rank: int,
    said: str | None,
    expected: bool,
    told: int,
) -> None:
    config, _ = make()
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: said)
    given = replace(task(config.model_copy(update={"cluster": ClusterConfig(address=address)})), rows=[3, 3])
    heard: list[int] = []
    lines = Lines(report_preemption=lambda: heard.append(rank))
    stage = next(each_stage(lambda after: given, rank, 2, lines))
    assert stage.preempted() is expected
    assert len(heard) == told


def test_a_job_that_ends_with_a_stage_unfinished_says_why() -> None:
    assert _why_it_ended(None) == "its workers left before the stage was finished"
    assert _why_it_ended(KeyError("x")) == "'x'"
    assert _why_it_ended(ZpdError("no such file")) == "no such file"


def test_a_loop_that_is_not_there_is_refused_before_anything_starts(make: Make) -> None:  # noqa: F811
    config, _ = make(function="tests.pipeline.loops:absent")
    with pytest.raises(ZpdError, match=r"loops has no 'absent'; the nearest are"):
        check_inputs(Run(config, Store(config.output)))


def test_outside_of_a_training_job_there_are_no_stages() -> None:
    with pytest.raises(ZpdError, match=r"train.function = 'my.module:loop'"):
        next(zpd_ray.stages())


@pytest.mark.parametrize(("method", "expected"), [("lora", "adapter_config.json"), ("full", "config.json")])
def test_a_report_without_a_result_is_refused(method: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ZpdError, match=rf"{expected}.*|notes.txt.*{expected}"):
        _check_result(method, tmp_path)
