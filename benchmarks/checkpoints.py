"""Seconds that a stage waits for its checkpoints on a slow store: stored at once, and in the background.

    python benchmarks/checkpoints.py [--rate 10] [--size 20] [--steps 60] [--every 10] [--seconds 0.3]

A loop of its own in one train worker. A step sleeps so many seconds; each so many of them it saves a file of
so many MB, and the store takes so many MB a second. "At once" is Ray Train's default, by which zpd-ray stored
before; "in the background" is ``stage.save_checkpoint``. Waited: in saving and in closing the stage.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa

from zpd_ray import schema
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.records import Selection, save_selection

MB = 1_000_000
ITEMS = 8
WAYS = ("at once", "in the background")
SETTINGS = "ZPD_RAY_BENCHMARK"  # in the environment of the train worker


def loop() -> None:
    """What the train worker runs."""
    import ray.train
    from ray.train import Checkpoint
    from ray.train.v2._internal.execution.storage import StorageContext

    import zpd_ray

    settings = json.loads(os.environ[SETTINGS])
    persist = StorageContext.persist_current_checkpoint

    def slowly(storage: StorageContext, checkpoint: Checkpoint, name: str) -> Checkpoint:
        time.sleep(settings["size"] / settings["rate"])
        return persist(storage, checkpoint, name)

    def at_once(directory: Path) -> None:
        ray.train.report({"stage": 0}, checkpoint=Checkpoint.from_directory(directory))

    with patch.object(StorageContext, "persist_current_checkpoint", slowly):
        for stage in zpd_ray.stages():
            train(stage, settings, at_once if settings["way"] == WAYS[0] else stage.save_checkpoint)


def train(stage: Any, settings: dict[str, Any], save: Callable[[Path], None]) -> None:
    """A stage of steps that sleep; leaves ``waited.json`` beside the files of the run."""
    waited, started = 0.0, time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            Path(place, name).touch()  # the result, for want of one
        state = Path(place, "state")
        state.mkdir()
        for step in range(1, settings["steps"] + 1):
            time.sleep(settings["seconds"])
            if step % settings["every"] == 0 and step < settings["steps"]:
                (state / "trainer.safetensors").write_bytes(os.urandom(int(settings["size"] * MB)))
                waited += timed(lambda: save(state))
        waited += timed(lambda: stage.report(place, {}))
    told = {"waited": round(waited, 2), "stage": round(time.perf_counter() - started, 2)}
    stage.task.store.write_json("waited.json", told)


def timed(call: Callable[[], Any]) -> float:
    """Its seconds."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measured(settings: dict[str, Any], way: str, place: str) -> dict[str, Any]:
    """In a Ray of its own."""
    from zpd_ray.config_file import validate
    from zpd_ray.pipeline.cluster.session import Session
    from zpd_ray.pipeline.train.train import prepare, train

    os.environ[SETTINGS] = json.dumps(settings | {"way": way})
    values = {
        "output": f"{place}/{way.replace(' ', '-')}",
        "stages": 1,
        "pool": {"path": "unused"},
        "model": {"path": place},
        "select": {"budget": {"items": ITEMS}},
        "train": {"method": "full", "function": "checkpoints:loop"},
        "cluster": {"cpus_per_train_worker": 1},
    }
    run = Run(validate(values), Store(str(values["output"])))
    write_selection(run.store)
    with Session(run) as session:
        train(session, prepare(session, 0))
    told: dict[str, Any] = run.store.read_json("waited.json")
    return {"way": way} | told


def write_selection(store: Store) -> None:
    """Eight items that nobody reads."""
    rows = [{"item_id": f"{i}", "rank": i} for i in range(ITEMS)]
    table = pa.Table.from_pylist(rows, schema=schema.RANK)
    store.write_table("stages/00/selected/part-000000.parquet", table)
    save_selection(store, "stages/00", Selection(ITEMS, ITEMS, 0, 0, 0, 0.0, 0.5, {}, ITEMS, "items", []))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rate", type=float, default=10.0, help="MB a second that the store takes")
    parser.add_argument("--size", type=float, default=20.0, help="MB of a checkpoint")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=10, help="steps between two checkpoints")
    parser.add_argument("--seconds", type=float, default=0.3, help="of a step")
    settings = vars(parser.parse_args())
    with tempfile.TemporaryDirectory() as place:
        for way in WAYS:
            print(json.dumps(settings | measured(settings, way, place)))


if __name__ == "__main__":
    main()
