"""Scoring actors over a whole run: a damaged adapter, and an engine whose own process is killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
from safetensors.numpy import load_file, save_file

from tests.engines.real_vllm import needs_vllm
from tests.pipeline.conftest import table_of
from tests.pipeline.processes import RUN_SECONDS, Quickstart, call
from zpd_ray.pipeline.scorers import Desk
from zpd_ray.pipeline.store import Store


def test_the_desk_hands_out_the_least_busy_scorer_and_spares_one_that_died() -> None:
    desk = Desk()
    assert [desk.take(3) for _ in range(4)] == [0, 1, 2, 0]
    desk.give_back(1, well=True)
    assert desk.take(3) == 1
    desk.give_back(2, well=False)
    assert [desk.take(3) for _ in range(3)] == [1, 0, 1]
    assert desk.take(1) == 0  # another pool, or a desk that was restarted


@pytest.mark.parametrize("runs", ["quickstart", pytest.param("vllm_quickstart", marks=needs_vllm)])
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
    again = call(done.command(run))
    assert again.returncode == 2, again.stderr
    assert "the engine does not serve what was trained" in again.stderr
    assert "Traceback" not in again.stderr
    assert not (run / "stages/00/metrics.json").exists()


def engine_processes(command: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(command.pid).children(recursive=True):
        try:
            if "EngineCore" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@needs_vllm
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
    while not store.names("stages/00/measurements"):
        assert command.poll() is None, command.stderr and command.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for process in engine_processes(command):
        process.kill()
    _, told = command.communicate(timeout=RUN_SECONDS)
    assert command.returncode == 0, told
    measured = table_of(store, "stages/00/measurements")
    undisturbed = table_of(Store(str(vllm_quickstart.output)), "stages/00/measurements")
    exact = [name for name in measured.column_names if name != "nll"]
    assert measured.select(exact).equals(undisturbed.select(exact))
    assert_close(measured["nll"], undisturbed["nll"])


def assert_close(ours: pa.ChunkedArray, theirs: pa.ChunkedArray) -> None:
    """Requests reach an engine process one by one, so its batches, and the last digit, depend on timing."""
    np.testing.assert_allclose(ours.to_numpy(), theirs.to_numpy(), atol=1e-5)
