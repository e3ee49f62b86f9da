"""The built-in loop under hard conditions, for ``train.function``."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
import ray.train
from ray.train import Checkpoint
from ray.train.v2._internal.execution.storage import StorageContext

from zpd_ray.pipeline.train import loop

STORING_SECONDS = 1.0
STEP_SECONDS = 0.2
STEPS_TAKEN = "steps-taken.txt"  # beside the run's files

Take = Callable[[Path, Callable[[], Checkpoint]], Checkpoint]


def slow_store() -> None:
    """The files of a checkpoint are there for a second before it is stored."""

    def slow(run: Path, take: Callable[[], Checkpoint]) -> Checkpoint:
        taken = take()
        time.sleep(STORING_SECONDS)
        return taken

    _train_with(slow)


def flaky_store() -> None:
    """The second checkpoint that is handed in is not taken."""

    def flaky(run: Path, take: Callable[[], Checkpoint]) -> Checkpoint:
        with (run / "handed-in.txt").open("a+") as handed_in:
            handed_in.write("x")
            if handed_in.tell() == 2:
                raise OSError("the store is away")
        return take()

    _train_with(flaky)


def lost_store() -> None:
    """No checkpoint is ever taken."""

    def lost(run: Path, take: Callable[[], Checkpoint]) -> Checkpoint:
        raise OSError("the store is gone")

    _train_with(lost)


def _train_with(store: Take) -> None:
    persist = StorageContext.persist_current_checkpoint

    def persisted(storage: StorageContext, checkpoint: Checkpoint, name: str) -> Checkpoint:
        return store(Path(storage.storage_fs_path), lambda: persist(storage, checkpoint, name))

    with patch.object(StorageContext, "persist_current_checkpoint", persisted):
        loop.train_loop()


def long_steps() -> None:
    """Each step takes a while, and worker 0 writes down which it has taken, and on which node."""
    step, node = loop.train_step, ray.get_runtime_context().get_node_id()
    context = ray.train.get_context()
    log = Path(context.get_storage().storage_fs_path, STEPS_TAKEN)

    def taken(learner: Any, progress: Any, *others: Any) -> None:
        time.sleep(STEP_SECONDS)
        number = progress.step
        step(learner, progress, *others)
        if context.get_world_rank() == 0:
            with log.open("a") as lines:
                lines.write(f"{node} {number}\n")

    with patch.object(loop, "train_step", taken):
        loop.train_loop()
