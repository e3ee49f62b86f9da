"""The training loop of zpd-ray itself: what each Ray Train worker runs when the config names no other.

The maths of a step are in ``zpd_ray.training.step``; here is what comes from Ray and the run directory.
"""

from __future__ import annotations

import gc
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from ray.train.torch import get_device, prepare_model
from torch import Tensor

from zpd_ray.config import Config
from zpd_ray.engines import ModelRef, canary
from zpd_ray.engines.model_files import load_tokenizer
from zpd_ray.engines.tokens import Encoded, encode_items
from zpd_ray.pipeline.train.controller import StageTask
from zpd_ray.pipeline.train.notices import Notices
from zpd_ray.pipeline.train.stages import Stage, stages
from zpd_ray.rundir import Run
from zpd_ray.rundir.selected import due, ranked
from zpd_ray.schema import STEP
from zpd_ray.training.model import load_trainable, save_model
from zpd_ray.training.packing import check_apart
from zpd_ray.training.peers import peers
from zpd_ray.training.sharding import gathered, is_sharded, sharded_loss
from zpd_ray.training.state import load_history, load_state, save_state
from zpd_ray.training.step import (
    Batch,
    Learner,
    StageProgress,
    item_nlls,
    micro_batches,
    new_learner,
    sharded_learner,
    train_step,
)


@dataclass
class Trainer:
    """A learner in one stage."""

    learner: Learner
    tokenizer: Any
    stage: Stage
    progress: StageProgress
    canary: pa.Table  # items with their NLL before the first step
    notices: Notices


def train_loop() -> None:
    """Train on this worker's shard of each stage from the last checkpoint on, and report the result."""
    learner: Learner | None = None
    trained = None  # the run directory of the stage before
    for stage in stages():
        fresh = trained != stage.task.store.root
        if fresh:
            learner = None  # another run's: its memory is free before the next one is loaded
            gc.collect()
        if learner is None:
            learner, tokenizer = _load(stage), load_tokenizer(stage.base)
        _train(_begin(learner, tokenizer, stage, fresh))
        trained = stage.task.store.root


def _train(trainer: Trainer) -> None:
    stage, progress = trainer.stage, trainer.progress
    for batch in _batches(trainer):
        train_step(trainer.learner, progress, _micro_batches(trainer, batch), stage.tell_rows)
        if progress.step < progress.steps and _is_due(trainer):
            _checkpoint(trainer)
    _report(trainer)


def _load(stage: Stage) -> Learner:
    """The model that the stage begins with, and an optimiser that has seen nothing."""
    config = stage.task.config
    torch.set_num_threads(max(1, int(config.cluster.cpus_per_train_worker)))
    learner = _learner(config, ModelRef(stage.base, stage.adapter), stage)
    if config.train.packing:
        check_apart(learner.loss, learner.device)
    return learner


def _learner(config: Config, model: ModelRef, stage: Stage) -> Learner:
    device = get_device()
    workers = peers(stage.rank, stage.workers, device)
    if config.train.sharding == "fsdp":
        return sharded_learner(config, sharded_loss(config, model, device), device, workers)
    # prepare_model moves the weights to this worker's device.
    return new_learner(config, load_trainable(config, model), workers, prepare_model)


def _begin(learner: Learner, tokenizer: Any, stage: Stage, fresh: bool) -> Trainer:
    """The learner as it was when the stage was left, or as the stage before has left it.

    fresh: it was loaded for this stage; else it has just trained the one before.
    """
    steps = math.ceil(max(stage.task.rows) / (stage.train.batch_size // stage.workers))
    progress, notices = StageProgress(stage.number, steps), Notices(stage, learner.workers.most)
    trainer = Trainer(learner, tokenizer, stage, progress, canary_items(stage.task), notices)
    trainer.canary = trainer.canary.append_column("nll_before", pa.array(_canary_nlls(trainer)))
    if not fresh:
        return trainer
    with stage.checkpoint() as directory:
        if directory is not None:  # this stage was interrupted
            trainer.progress.counters = load_state(directory, learner.net, learner.optimizer)
            trainer.progress.history |= load_history(directory)
        elif stage.number and not Run(stage.task.config, stage.task.store).adopted(stage.number - 1):
            # Optimiser moments carry on from the stage before.
            with tempfile.TemporaryDirectory() as copies:
                state = stage.task.store.local_copy(f"stages/{stage.number - 1:02d}/trainer", copies)
                load_state(Path(state), learner.net, learner.optimizer)
    return trainer


def _batches(trainer: Trainer) -> Iterator[pa.Table]:
    """This worker's share of each global batch that is still to come; empty when its shard ran out."""
    stage, done = trainer.stage, trainer.progress.step
    size = stage.train.batch_size // stage.workers
    batches = stage.iter_batches(size, first=done * size)
    for _ in range(done, trainer.progress.steps):
        yield next(batches, pa.table({}))


def _micro_batches(trainer: Trainer, rows: pa.Table) -> list[Batch]:
    ids = _encoded(trainer, rows) if rows.num_rows else Encoded([], [], [])
    train = trainer.stage.train
    return micro_batches(ids.prompt_ids, ids.response_ids, train.micro_batch_size, train.packing, ids.trained)


def _encoded(trainer: Trainer, rows: pa.Table) -> Encoded:
    return encode_items(trainer.tokenizer, rows, trainer.learner.config)


def canary_items(task: StageTask) -> pa.Table:
    """The longest responses of the selection's first file: rounding weighs least in their mean."""
    run, stage = Run(task.config, task.store), task.model.stage
    first = next(ranked(run, stage))
    order = pc.sort_indices(first, [("response_tokens", "descending"), ("item_id", "ascending")])
    return due(run, stage, first.take(order[: canary.ITEMS]), ["item_id", "response_tokens"])


def _canary_nlls(trainer: Trainer) -> list[float]:
    """NLL of each canary item, nats per token, as the trainer computes it."""
    ids = _encoded(trainer, trainer.canary)
    return item_nlls(trainer.learner, ids.prompt_ids, ids.response_ids, ids.trained)


def _is_due(trainer: Trainer) -> bool:
    """Whether all workers save a checkpoint after this step."""
    noticed = trainer.notices.arrived()  # they ask together, after whatever step
    return noticed or trainer.progress.step % trainer.stage.train.checkpoint_steps == 0


def _checkpoint(trainer: Trainer) -> None:
    """All workers report; those that have a part of the state bring it along."""
    if _part(trainer) is None:
        trainer.stage.save_checkpoint(None)
        return
    trainer.stage.wait_for_checkpoints()  # before another one takes room on the disk
    with tempfile.TemporaryDirectory() as directory:
        state = Path(directory) / "state"
        state.mkdir()
        _save_state(trainer, str(state), trainer.progress.history)
        trainer.stage.save_checkpoint(state, move=True)


def _part(trainer: Trainer) -> tuple[int, int] | None:
    """Which part of how many of the trainer state this worker has; None: worker 0 has all of it."""
    stage = trainer.stage
    if is_sharded(trainer.learner.loss):
        return stage.rank, stage.workers
    return (0, 1) if stage.rank == 0 else None


def _save_state(trainer: Trainer, directory: str, history: dict[str, list[float]] | None = None) -> None:
    """history: for a stage that may go on from here."""
    learner, part = trainer.learner, _part(trainer)
    assert part is not None
    counters = trainer.progress.counters
    save_state(Path(directory), learner.net, learner.optimizer, counters, history, part)


def _upload_state(trainer: Trainer) -> None:
    """The trainer state into the run directory, from all workers that have a part of it."""
    stage, task = trainer.stage, trainer.stage.task
    if stage.rank == 0:
        task.store.remove(f"{task.directory}/trainer")  # of an attempt that was broken off
    if is_sharded(trainer.learner.loss):
        trainer.learner.workers.total(0.0)  # all wait for it
    if _part(trainer) is not None:
        with tempfile.TemporaryDirectory() as directory:
            _save_state(trainer, directory)
            task.store.upload(directory, f"{task.directory}/trainer", beside=True)


def steps_table(progress: StageProgress) -> pa.Table:
    """A row per optimiser step (``schema.STEP``); none for those before a checkpoint without a history."""
    history = progress.history
    first = progress.step - len(history["loss"])
    columns = {"step": range(first, progress.step), **history}
    return pa.table([pa.array(columns[each.name], each.type) for each in STEP], schema=STEP)


def _report(trainer: Trainer) -> None:
    """Trainer state, canary and model into the run directory; the report, which closes the stage, last."""
    learner, stage = trainer.learner, trainer.stage
    sharded = is_sharded(learner.loss)
    _upload_state(trainer)
    after = _canary_nlls(trainer) if sharded or stage.rank == 0 else []
    # Every worker has uploaded its part when worker 0 has these from it.
    whole = gathered(learner.net, learner.device, keep=stage.rank == 0) if sharded else None
    if stage.rank == 0:
        _report_result(trainer, after, whole)
    else:
        stage.report(None, {})


def _report_result(trainer: Trainer, after: list[float], whole: dict[str, Tensor] | None) -> None:
    """after: NLLs of the canary. whole: the tensors of a model of which this worker has a share."""
    learner, task, counters = trainer.learner, trainer.stage.task, trainer.progress.counters
    expected = trainer.canary.append_column("nll_after", pa.array(after))
    task.store.write_table(f"{task.directory}/canary.parquet", expected)
    task.store.write_table(f"{task.directory}/steps.parquet", steps_table(trainer.progress))
    nll = counters["nll"] / counters["tokens"]
    with tempfile.TemporaryDirectory() as directory:
        save_model(learner.config, learner.net, trainer.tokenizer, Path(directory), whole)
        metrics = {"steps": int(counters["step"]), "tokens": int(counters["tokens"]), "train_nll": nll}
        trainer.stage.report(directory, metrics)
