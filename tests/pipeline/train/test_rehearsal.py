"""One training step before anything is measured: on the longest items, and nothing of it is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayError

from tests import tiny
from tests.pipeline.conftest import questions, table_of, write_jsonl
from zpd_ray.config_file import validate
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster.failures import user_error
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.pipeline.ingest.ingest import ingest
from zpd_ray.pipeline.train import rehearsal
from zpd_ray.rundir import Run, Store

pytestmark = pytest.mark.usefixtures("local_ray")

Open = Callable[..., Run]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_model(tmp_path_factory.mktemp("llama"), layers=1)


@pytest.fixture
def open_run(model: Path, tmp_path: Path) -> Open:
    """A run with its pool; keyword arguments are of the train section."""

    def make(**train: Any) -> Run:
        pool = write_jsonl(tmp_path / "pool.jsonl", questions(50))
        values = {
            "output": str(tmp_path / "out"),
            "pool": {"path": str(pool), "items_per_part": 9},
            "model": {"path": str(model)},
            "select": {"budget": {"items": 8}},
            "train": {"micro_batch_size": 4} | train,
        }
        config = validate(values)
        return Run(config, Store(config.output))

    return make


def test_the_longest_items_of_all_parts_are_trained_on(open_run: Open) -> None:
    run = open_run()
    with Session(run):
        ingest(run)
        longest = rehearsal.longest_items(run.config, run.store, 4)
        assert rehearsal.is_due(run)
        told = rehearsal.rehearse(run)
    items = table_of(run.store, "pool").to_pylist()
    lengths = sorted((row["prompt_tokens"] + row["response_tokens"] for row in items), reverse=True)
    found = [row["prompt_tokens"] + row["response_tokens"] for row in longest.to_pylist()]
    assert found == lengths[:4]
    assert told["rows"] == 4
    assert told["longest"] == lengths[0]
    assert told["step_seconds"] > 0
    assert told["gib"] > 0
    assert not rehearsal.is_due(run)
    assert rehearsal.is_due(open_run(micro_batch_size=8))  # other settings are tried again
    assert not rehearsal.is_due(open_run(rehearse=False, micro_batch_size=8))
    assert not run.store.exists("stages")
    own = run.config.train.model_copy(update={"target": "own"})
    own_run = rehearsal.longest_items(run.config.model_copy(update={"train": own}), run.store, 2)
    prompts = sorted((row["prompt_tokens"] for row in items), reverse=True)
    assert own_run["prompt_tokens"].to_pylist() == prompts[:2]
    assert own_run["response_tokens"].to_pylist() == [run.config.measure.max_new_tokens] * 2


def test_a_step_that_fails_is_told_before_anything_is_measured(
    open_run: Open,
) -> None:
    run = open_run(lora={"rank": 1, "alpha": 10**300})
    with Session(run):
        ingest(run)
        with pytest.raises((ZpdError, RayError)) as told:
            rehearsal.rehearse(run)
    error = user_error(told.value) or told.value
    assert "a training step gives the loss nan: look at train.lora" in str(error)


@pytest.mark.nightly  # tests/training/test_sharding.py: the step itself
def test_workers_that_share_the_model_out_try_the_step_together(open_run: Open) -> None:
    shared = {"workers": 2, "sharding": "fsdp"}
    run = open_run(**shared)
    with Session(run):
        ingest(run)
        told = rehearsal.rehearse(run)
        assert told["rows"] == 4
        assert told["step_seconds"] > 0
        assert told["gib"] > 0
        assert not rehearsal.is_due(run)
        assert rehearsal.is_due(open_run(**shared | {"workers": 4}))  # of whom each has less
        broken = open_run(**shared, lora={"rank": 1, "alpha": 10**300})
        with pytest.raises((ZpdError, RayError)) as failed:
            rehearsal.rehearse(broken)
    error = user_error(failed.value) or failed.value
    assert "a training step gives the loss nan: look at train.lora" in str(error)
