"""Train on a stage's selection: batches streamed from Ray Data to the workers of a Ray Train job."""

from __future__ import annotations

from typing import Any

from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.pipeline.train.controller import StageTask
from zpd_ray.pipeline.train.shards import ordered_shards, share_of
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import TRAIN, StageFiles, in_words
from zpd_ray.rundir.records import load_closing, load_selection
from zpd_ray.terminal import progress, say


def prepare(session: Session, stage: int) -> StageTask:
    """Train workers, if there are none, and what the stage selected in the order in which they take it."""
    run, directory = session.run, StageFiles(stage).directory
    session.train_job()  # first: workers start while the selection is sorted
    items, epochs, workers = _dealt(run, stage), run.config.train.epochs, run.config.train.workers
    rows = [epochs * share_of(items, worker, workers) for worker in range(workers)]
    shards = ordered_shards(run, StageFiles(stage).selected, stage, epochs, rows)
    return StageTask(run.config, run.store, run.model(stage), directory, items, rows, shards)


def train(session: Session, task: StageTask) -> dict[str, Any]:
    """Train a stage; an interrupted one goes on from its last checkpoint.

    Leaves the adapter (or model), the trainer state and train.json in the stage's directory; returns what is
    in the latter. waited: seconds in which workers that are up since the stage before had nothing to train.
    starting: seconds in which a stage waited for workers that were not up yet.
    """
    train, stage = session.run.config.train, task.model.stage
    what = f"training {in_words(task.directory)}"
    shared = ", which share the model out" if train.sharding == "fsdp" else ""
    say(f"{what}: {task.items} items, {train.epochs} epochs, {train.workers} workers{shared}")
    if stage and not train.function and session.run.adopted(stage - 1):
        say(f"  note: stage {stage - 1} was trained elsewhere, so the optimiser's moments start afresh")
    with progress(what, task.rows[0]) as advance:
        status = session.train_job().train(task, advance)
    seconds = {"waited": status.waited, "starting": status.starting}
    known = {name: round(each, 3) for name, each in seconds.items() if each is not None}
    return load_closing(session.run.store, stage, TRAIN) | known


def _dealt(run: Run, stage: int) -> int:
    """Items that are trained on: all, and for a loop of the user's the same number for every worker."""
    selected = load_selection(run.store, StageFiles(stage).selection()).selected
    return selected - (selected % run.config.train.workers if run.config.train.function else 0)
