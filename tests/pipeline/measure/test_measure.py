"""Measuring with a real engine through Ray Data: any number of actors, a killed actor, rows that fail."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from tests.engines.real_vllm import needs_vllm
from tests.pipeline.conftest import questions, table_of, write_jsonl
from tests.pipeline.processes import descendants
from zpd_ray import schema
from zpd_ray.config import Config
from zpd_ray.config_file import validate
from zpd_ray.engines import ModelRef
from zpd_ray.engines.transformers import TransformersEngine
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.pipeline.commands import perform
from zpd_ray.pipeline.ingest.ingest import ingest
from zpd_ray.pipeline.measure.measure import measure
from zpd_ray.rundir import Run, Store

pytestmark = pytest.mark.usefixtures("local_ray")

ENGINES = ["transformers", pytest.param("vllm", marks=[needs_vllm, pytest.mark.slow])]
ITEMS = 72
RARE = "~"  # in three items of the pool and in no text that the tokenizer merges
INTO = "stages/00/measurements/answers"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_model(tmp_path_factory.mktemp("llama"), layers=1)


Open = Callable[..., tuple[Config, Store]]


@pytest.fixture(scope="module", params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    """Every test here holds for every real engine."""
    return str(request.param)


@pytest.fixture(scope="module")
def open_pool(
    local_ray: None, engine_name: str, model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Open:
    """A run directory with an ingested pool; keyword arguments are sections of the config."""
    directory = tmp_path_factory.mktemp("pool")
    rows = questions(ITEMS)
    rows[:3] = [row | {"response": f"{RARE} and so on"} for row in rows[:3]]  # type: ignore[operator]
    pool = write_jsonl(directory / "pool.jsonl", rows)

    def make(**sections: Any) -> tuple[Config, Store]:
        values = {
            "output": str(tmp_path_factory.mktemp("run")),
            "pool": {"path": str(pool), "items_per_part": 9},
            "model": {"path": str(model_dir)},
            "engine": {"name": engine_name},
            "measure": {"grader": "numeric", "rollouts": 2, "max_new_tokens": 24},
            "select": {"budget": {"items": 8}},
        }
        config = validate(values | sections)
        store = Store(config.output)
        with Session(Run(config, store)) as session:
            ingest(session.run)
        return config, store

    return make


def run(config: Config, store: Store) -> dict[str, Any]:
    with Session(Run(config, store)) as session:
        return measure(session, "answers", ModelRef(config.model.path), "pool", INTO)


def measured_bytes(store: Store) -> dict[str, bytes]:
    return {name: store.read_bytes(f"{INTO}/{name}") for name in store.names(INTO)}


Measured = tuple[Config, Store, dict[str, Any]]


@pytest.fixture(scope="module")
def reference(open_pool: Open) -> Measured:
    """Measured by one actor: config, store and totals."""
    config, store = open_pool()
    return config, store, run(config, store)


def test_every_item_is_measured_once_and_at_its_place(reference: Measured) -> None:
    _, store, totals = reference
    names = store.names("pool")
    assert store.names(INTO) == names
    assert len(names) >= 5
    for name in names:
        table = store.read_table(f"{INTO}/{name}")
        assert table.schema == schema.MEASUREMENT
        assert table["item_id"].equals(store.read_table(f"pool/{name}", ["item_id"])["item_id"])
    measured = table_of(store, INTO)
    assert measured["error"].null_count == ITEMS
    assert np.isfinite(measured["nll"].to_numpy()).all()
    assert totals == {
        "items": ITEMS,
        "failed": 0,
        "tokens": store.read_json("pool.json")["response_tokens"],
        "responses": 2 * ITEMS,
        "right": sum(measured["successes"].to_pylist()),
        "unparsed": sum(measured["unparsed"].to_pylist()),
    }


@pytest.mark.nightly  # tests/pipeline/test_run.py: three actors, with the simulated engine
def test_two_actors_give_the_same_bytes_as_one(reference: Measured, open_pool: Open) -> None:
    _, store, totals = reference
    config, other = open_pool(cluster={"actors": 2})
    assert run(config, other) == totals
    assert measured_bytes(other) == measured_bytes(store)


class Killer(threading.Thread):
    """Kills a scoring actor as soon as a first part is finished."""

    def __init__(self, store: Store) -> None:
        super().__init__(daemon=True)
        self.store, self.finished, self.over = store, 0, threading.Event()

    def run(self) -> None:
        while not self.finished and not self.over.wait(0.005):
            parts = len(self.store.names(INTO))
            if parts:
                descendants(os.getpid(), "ray::Scorer")[-1].kill()
                self.finished = parts


@pytest.mark.nightly  # test_scorers.py: an engine that ends its process, a killed one that hands out parts
def test_a_killed_actor_is_replaced_and_nothing_is_missing_or_there_twice(
    reference: Measured, open_pool: Open
) -> None:
    _, store, totals = reference
    config, other = open_pool()
    killer = Killer(other)
    killer.start()
    counted = run(config, other)
    killer.over.set()
    killer.join()
    assert 0 < killer.finished < len(other.names("pool")), "no actor could be killed midway"
    assert counted == totals
    assert measured_bytes(other) == measured_bytes(store)


def test_finished_parts_are_not_measured_again(reference: Measured) -> None:
    config, store, totals = reference
    before = measured_bytes(store)
    lost, *kept = sorted(before)
    os.unlink(store.path(f"{INTO}/{lost}"))
    Path(store.path(f"{INTO}/.{lost}.0123")).write_bytes(b"half written")
    times = {name: os.stat(store.path(f"{INTO}/{name}")).st_mtime_ns for name in kept}
    assert run(config, store) == totals
    assert measured_bytes(store) == before
    assert {name: os.stat(store.path(f"{INTO}/{name}")).st_mtime_ns for name in kept} == times


def broken_model(model_dir: Path, directory: Path) -> Path:
    """The model with a NaN where the rare token is embedded: rows that hold it cannot be measured."""
    tokenizer = tiny.build_tokenizer()
    directory.mkdir()
    for file in model_dir.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    weights = load_file(directory / "model.safetensors")
    (rare,) = tokenizer(RARE).input_ids
    weights["model.embed_tokens.weight"][rare] = torch.nan
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def test_failed_rows_are_counted_and_too_many_stop_the_run(
    reference: Measured, open_pool: Open, model_dir: Path, tmp_path: Path
) -> None:
    model = {"path": str(broken_model(model_dir, tmp_path / "broken"))}
    greedy = {"grader": "greedy_match", "max_failed_share": 2 / ITEMS}
    config, store = open_pool(model=model, measure=greedy)
    with pytest.raises(ZpdError, match=rf"of {ITEMS} items could not be measured.*max_failed_share") as told:
        run(config, store)
    assert "one said: " in str(told.value)
    enough = config.measure.model_copy(update={"max_failed_share": 3 / ITEMS})
    totals = run(config.model_copy(update={"measure": enough}), store)
    assert (totals["items"], totals["failed"]) == (ITEMS, 3)
    failed = [row for row in table_of(store, INTO).to_pylist() if row["error"] is not None]
    assert len(failed) == 3
    for row in failed:
        assert row["nll"] is None
        assert (row["n_tokens"], row["successes"], row["rollouts"], row["unparsed"]) == (0, 0, 0, 0)
    assert totals["responses"] == ITEMS - 3
    sound = table_of(reference[1], INTO)
    ours = {row["item_id"]: row["nll"] for row in table_of(store, INTO).to_pylist() if row["error"] is None}
    theirs = dict(zip(sound["item_id"].to_pylist(), sound["nll"].to_pylist(), strict=True))
    assert ours == pytest.approx({item: theirs[item] for item in ours}, abs=1e-5)


def test_a_measure_may_ask_another_model(
    local_ray: None, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scoring actors start anew with it: a proxy of another width and another tokenizer."""
    proxy = tiny.build_model(tmp_path / "proxy", layers=1, heads=1, chat=True, seed=1)
    monkeypatch.setenv("ZPD_TEST_PROXY", str(proxy))
    pool = write_jsonl(tmp_path / "pool.jsonl", questions(20))
    values = {
        "output": str(tmp_path / "run"),
        "stages": 1,
        "pool": {"path": str(pool)},
        "model": {"path": str(model_dir)},
        "select": {"budget": {"items": 5}, "method": "tests.pipeline.own_method:LeastForProxy"},
    }
    config, store = validate(values), Store(str(tmp_path / "run"))
    perform("measure", config)
    items = table_of(store, "pool")
    for path, column, directory in (
        (model_dir, "nll", "answers"),
        (proxy, "nll_proxy", "tests.pipeline.own_method.ByProxy"),
    ):
        measured = table_of(store, f"stages/00/measurements/{directory}")[column].to_numpy()
        expected = TransformersEngine(config, ModelRef(str(path))).score(items).nll
        np.testing.assert_allclose(measured, expected, atol=1e-5)
