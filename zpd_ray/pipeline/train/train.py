"""Train on a stage's selection: batches streamed from Ray Data to the workers of a Ray Train job."""

from __future__ import annotations

from typing import Any

from zpd_ray.config import Config
from zpd_ray.engines import ModelRef
from zpd_ray.pipeline.train.controller import StageTask
from zpd_ray.pipeline.train.job import train_job
from zpd_ray.pipeline.train.shards import ordered_shards, share_of
from zpd_ray.rundir.store import Store
from zpd_ray.terminal import progress, say


def prepare(config: Config, store: Store, model: ModelRef, directory: str) -> StageTask:
    """Train workers, if there are none, and ``directory``/selected in the order in which they take it.

    model: what the stage begins with; directory: of the stage.
    """
    train_job(config, store)  # first: workers start while the selection is sorted
    items, epochs, workers = _dealt(config, store, directory), config.train.epochs, config.train.workers
    rows = [epochs * share_of(items, worker, workers) for worker in range(workers)]
    shards = ordered_shards(store, f"{directory}/selected", config.seed, model.stage, epochs, rows)
    return StageTask(config, store, model, directory, items, rows, [shard.iterator() for shard in shards])


def train(config: Config, store: Store, task: StageTask) -> dict[str, Any]:
    """Train a stage; an interrupted one goes on from its last checkpoint.

    Leaves the adapter (or model), the trainer state and train.json in the stage's directory; returns what is
    in the latter. waited: seconds in which workers that are up since the stage before had nothing to train.
    """
    epochs, workers = config.train.epochs, config.train.workers
    say(f"training {task.directory}: {task.items} items, {epochs} epochs, {workers} workers")
    with progress(f"training {task.directory}", task.rows[0]) as advance:
        status = train_job(config, store).train(task, advance)
    waited = {} if status.waited is None else {"waited": round(status.waited, 3)}
    return store.read_json(f"{task.directory}/train.json") | waited


def _dealt(config: Config, store: Store, directory: str) -> int:
    """Items that are trained on: all, and for a loop of the user's the same number for every worker."""
    selected = int(store.read_json(f"{directory}/selection.json")["selected"])
    return selected - (selected % config.train.workers if config.train.function else 0)
