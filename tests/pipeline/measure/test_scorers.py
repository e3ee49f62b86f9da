"""Scoring actors over a whole run: a damaged adapter, and an engine whose own process is killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
import ray
from ray.exceptions import RayError
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from tests.engines.real_vllm import needs_vllm
from tests.pipeline.conftest import simulated_values, table_of
from tests.pipeline.processes import RUN_SECONDS, Quickstart, descendants, flags
from zpd_ray import ray_folder
from zpd_ray.cli.app import app
from zpd_ray.config import Config
from zpd_ray.config_file import validate
from zpd_ray.engines import Engine, EngineError, ModelRef
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster.failures import user_error
from zpd_ray.pipeline.cluster.resources import room_for_both
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.pipeline.ingest.ingest import ingest
from zpd_ray.pipeline.measure import dispatch, scorers
from zpd_ray.pipeline.measure.dispatch import Balancer
from zpd_ray.pipeline.measure.measure import measure
from zpd_ray.pipeline.measure.scorer import Request, Scorer
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.records import load_events


def test_the_least_busy_scorer_is_next_and_one_that_was_away_is_spared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    balancer = Balancer(3)
    assert [balancer.take() for _ in range(4)] == [0, 1, 2, 0]
    balancer.give_back(1, well=True)
    assert balancer.take() == 1
    balancer.give_back(2, well=False)
    assert [balancer.take() for _ in range(3)] == [1, 2, 2]  # it is asked when the others have enough in hand
    balancer.give_back(2, well=False)
    balancer.give_back(0, well=True)
    assert balancer.take() == 0
    monkeypatch.setattr(dispatch, "AWAY_SECONDS", 0.0)
    balancer.give_back(2, well=False)
    balancer.give_back(0, well=True)
    assert balancer.take() == 2  # after a while it is as good as any other


VLLM = pytest.param("vllm_quickstart", marks=[needs_vllm, pytest.mark.slow])


@pytest.mark.parametrize("runs", ["quickstart", VLLM])
def test_an_adapter_that_was_damaged_after_training_stops_the_run(
    runs: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    done: Quickstart = request.getfixturevalue(runs)
    run = tmp_path / "run"
    shutil.copytree(done.output, run)
    shutil.rmtree(run / "stages/01")
    shutil.rmtree(run / "stages/00/evaluation")
    (run / "stages/00/metrics.json").unlink()
    file = run / "stages/00/adapter/adapter_model.safetensors"
    weights = load_file(file)
    name = sorted(name for name in weights if "lora_B" in name)[0]
    save_file(weights | {name: np.zeros_like(weights[name])}, file)
    again = CliRunner().invoke(app, ["run", str(done.config), *flags(*done.overrides, f"output={run}")])
    assert again.exit_code == 2, again.stderr
    assert "the engine does not serve what was trained" in again.stderr
    assert "Traceback" not in again.stderr
    assert not (run / "stages/00/metrics.json").exists()


def dispatchers() -> list[psutil.Process]:
    """Processes of this test's Ray that hand out parts."""
    return descendants(os.getpid(), "ray::MapBatches(hand_out)")


class Flaky(Scorer):
    """A scorer whose engine fails as often as files named "fail" are left to take."""

    def _engine_of(self, request: Request) -> Engine:
        for file in sorted(Path(request.run.store.path("fail")).glob("*")):
            with suppress(FileNotFoundError):
                file.unlink()
                raise EngineError("the device is in an undefined state")
        return super()._engine_of(request)


@pytest.fixture
def open_flaky(local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenFlaky:
    """A pool to measure with engines that fail so many times."""
    monkeypatch.setattr(scorers, "Scorer", Flaky)

    def begin(failures: int, actors: int) -> tuple[Config, Store]:
        values = simulated_values(tmp_path, n=60, output=str(tmp_path / f"out{failures}"))
        config = validate(values | {"cluster": {"actors": actors}})
        store = Store(config.output)
        with Session(Run(config, store)) as session:
            ingest(session.run)
        for i in range(failures):
            store.write_bytes(f"fail/{i}", b"")
        return config, store

    return begin


OpenFlaky = Callable[[int, int], tuple[Config, Store]]


def run(config: Config, store: Store) -> dict[str, Any]:
    with Session(Run(config, store)) as session:
        return measure(session, "answers", ModelRef("none"), "pool", "measured")


@pytest.mark.parametrize("actors", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_an_engine_that_fails_gets_a_fresh_process_and_the_part_is_done_again(
    open_flaky: OpenFlaky, actors: int
) -> None:
    config, store = open_flaky(2, actors)
    totals = run(config, store)
    assert totals["items"] == 60
    assert not store.names("fail")
    assert table_of(store, "measured").num_rows == 60


def test_an_engine_that_always_fails_stops_the_run_with_its_reason(open_flaky: OpenFlaky) -> None:
    config, store = open_flaky(50, 1)
    with pytest.raises(RayError) as told:
        run(config, store)
    error = user_error(told.value)
    assert error is not None
    assert "could not be measured in 4 attempts: the device is in an undefined state" in str(error)
    assert f"/{ray_folder.PREFIX}" in ray_folder.logs()  # the tests' Ray is one of our own
    assert f"see the Ray logs in {ray_folder.logs()} for the scoring actors" in str(error)
    assert len(store.names("fail")) <= 46


HUNG = {"engine": {"name": "tests.pipeline.hanging:HangingEngine"}, "cluster": {"actors": 1}}


def test_an_engine_that_hangs_is_ended_and_the_item_is_named(local_ray: None, tmp_path: Path) -> None:
    values = simulated_values(tmp_path, n=20, **HUNG)
    config = validate(values | {"measure": {"grader": "exact", "patience": 3.0}})
    store = Store(config.output)
    with Session(Run(config, store)) as session:
        ingest(session.run)
    store.write_bytes("hang", b"")
    with pytest.raises(RayError) as told:
        run(config, store)
    first = store.read_table(f"pool/{store.names('pool')[0]}")["item_id"][0].as_py()
    sentence = str(user_error(told.value))
    assert (
        "could not be measured in 2 attempts: the engine did nothing for measure.patience = 3 s" in sentence
    )
    assert f"near item {first!r}" in sentence
    (tmp_path / "out" / "hang").unlink(missing_ok=True)


def test_a_grader_that_hangs_stops_the_run_and_is_named(local_ray: None, tmp_path: Path) -> None:
    values = simulated_values(tmp_path, n=20)
    grader = {"grader": "tests.pipeline.hanging:grade", "patience": 5.0}
    config = validate(values | {"measure": grader, "cluster": {"actors": 1}})
    store = Store(config.output)
    with Session(Run(config, store)) as session:
        ingest(session.run)
    with pytest.raises(RayError) as told:
        run(config, store)
    assert "hanging:grade took longer than measure.patience = 5 s over item" in str(user_error(told.value))


class Slow(Scorer):
    """A scorer that takes its time."""

    def measure(self, *arguments: Any) -> dict[str, Any]:
        time.sleep(0.5)
        return super().measure(*arguments)


def test_one_process_hands_out_all_parts_and_where_it_is_killed_another_goes_on(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorers, "Scorer", Slow)
    pool = {"items_per_part": 10}
    config = validate(simulated_values(tmp_path, n=400, pool=pool, cluster={"actors": 2}))
    store = Store(config.output)
    with Session(Run(config, store)) as session:
        ingest(session.run)
    killed: list[int] = []
    before = {process.pid for process in dispatchers()}  # that of an earlier test may still be ending

    def kill() -> None:
        while not store.names("measured"):
            time.sleep(0.05)
        found = [process for process in dispatchers() if process.pid not in before]
        killed.extend(process.pid for process in found)
        for process in found:
            process.kill()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    totals = run(config, store)
    killer.join()
    assert len(killed) == 1
    assert totals["items"] == table_of(store, "measured").num_rows == 400


def test_a_scorer_that_finds_no_place_holds_nobody_up(local_ray: None, tmp_path: Path) -> None:
    most = 0.6 * ray.cluster_resources()["CPU"]  # room for one of two
    place = {"actors": 2, "cpus_per_actor": most, "autoscaling": True}
    config = validate(simulated_values(tmp_path, cluster=place))
    store = Store(config.output)
    with Session(Run(config, store)) as session:
        ingest(session.run)
    assert run(config, store)["items"] == table_of(store, "measured").num_rows == 1500
    (event,) = load_events(store)
    assert len(event.details["scorers"]) == 1


@pytest.mark.parametrize(
    ("cpus", "scoring", "room"), [(1.5, True, True), (1.5, False, False), (64, True, False)]
)
def test_room_to_train_beside_the_scorers_is_asked_of_ray(
    local_ray: None, tmp_path: Path, cpus: float, scoring: bool, room: bool
) -> None:
    """Four CPUs: 1.5 for the worker, 1 for a task, and 2 for scorers that have no place yet."""
    values = simulated_values(tmp_path, n=1, engine={"name": "transformers"}, train={"method": "lora"})
    cluster = {"cpus_per_train_worker": cpus, "actors": 2}
    assert room_for_both(validate(values | {"cluster": cluster}), scoring) is room


def test_a_scorer_that_finds_no_place_is_told_with_what_there_is(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorers, "PLACE_SECONDS", 10.0)
    config = validate(simulated_values(tmp_path, n=1) | {"cluster": {"actors": 2, "cpus_per_actor": 3}})
    with pytest.raises(ZpdError, match=r"1 of 2 scoring actors found a place.*each asks for 3 CPUs"):
        scorers.Scorers(Run(config, Store(config.output)))


@needs_vllm
@pytest.mark.slow
def test_a_killed_engine_process_is_replaced_and_nothing_is_missing(
    vllm_quickstart: Quickstart, tmp_path: Path
) -> None:
    """vLLM's engine in a process beside its actor, as it is with several GPUs."""
    run = tmp_path / "run"
    environment = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    command = subprocess.Popen(
        vllm_quickstart.command(run, "measure"), stderr=subprocess.PIPE, text=True, env=environment
    )
    store, deadline = Store(str(run)), time.monotonic() + RUN_SECONDS
    while not store.names("stages/00/measurements/answers"):
        assert command.poll() is None, command.stderr and command.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    engines = descendants(command.pid, "EngineCore")
    for process in engines:
        process.kill()
    assert engines, "no engine process to kill"
    assert not store.exists("stages/00/measured.json"), "killed too late to say anything"
    _, told = command.communicate(timeout=RUN_SECONDS)
    assert command.returncode == 0, told
    measured = table_of(store, "stages/00/measurements/answers")
    undisturbed = table_of(Store(str(vllm_quickstart.output)), "stages/00/measurements/answers")
    exact = [name for name in measured.column_names if name != "nll"]
    assert measured.select(exact).equals(undisturbed.select(exact))
    assert_close(measured["nll"], undisturbed["nll"])


def assert_close(ours: pa.ChunkedArray, theirs: pa.ChunkedArray) -> None:
    """Requests reach an engine process one by one, so its batches, and the last digit, depend on timing."""
    np.testing.assert_allclose(ours.to_numpy(), theirs.to_numpy(), atol=1e-5)
