"""The training loop of zpd-ray itself: what each Ray Train worker runs when the config names no other."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.distributed as dist
from ray.train.torch import get_device, prepare_model
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from zpd_ray.config import Config, TrainConfig
from zpd_ray.engines import ModelRef, canary
from zpd_ray.engines.tokens import encode, load_tokenizer
from zpd_ray.pipeline.train.controller import Work
from zpd_ray.pipeline.train.stages import Stage, stages
from zpd_ray.training.loss import IGNORED, collate, response_nll
from zpd_ray.training.model import load_trainable, save_model
from zpd_ray.training.schedule import learning_rate
from zpd_ray.training.state import load_state, save_state, trainable


@dataclass
class Learner:
    """What a worker keeps from stage to stage."""

    config: Config
    net: nn.Module  # the model itself: what is saved
    forward: nn.Module  # the same inside DistributedDataParallel: what is called
    optimizer: AdamW
    tokenizer: Any


@dataclass
class Trainer:
    """A learner in one stage."""

    learner: Learner
    stage: Stage
    steps: int  # of the stage
    canary: pa.Table  # items with their NLL before the first step
    counters: dict[str, float] = field(default_factory=lambda: {"step": 0.0, "nll": 0.0, "tokens": 0.0})

    @property
    def train(self) -> TrainConfig:
        """The config's train section."""
        return self.stage.train


def train_loop() -> None:
    """Train on this worker's shard of each stage from the last checkpoint on, and report the result."""
    learner: Learner | None = None
    for stage in stages():
        fresh = learner is None
        learner = learner or _load(stage)
        trainer = _begin(learner, stage, fresh)
        for batch in _batches(trainer):
            _step(trainer, batch)
            done = int(trainer.counters["step"])
            if done % stage.train.checkpoint_steps == 0 and done < trainer.steps:
                _checkpoint(trainer)
        _report(trainer)


def _load(stage: Stage) -> Learner:
    """The model that the stage begins with, and an optimiser that has seen nothing."""
    config = stage.work.config
    torch.set_num_threads(max(1, int(config.cluster.cpus_per_train_worker)))
    net = load_trainable(config, ModelRef(stage.base, stage.adapter))
    optimizer = AdamW(trainable(net).values(), lr=0.0, weight_decay=config.train.weight_decay)
    return Learner(config, net, prepare_model(net), optimizer, load_tokenizer(stage.base))


def _begin(learner: Learner, stage: Stage, fresh: bool) -> Trainer:
    """The learner as it was when the stage was left, or as the stage before has left it.

    fresh: it was loaded for this stage; else it has just trained the one before.
    """
    watched = _canary_items(stage.work)
    before = _item_nlls(learner, watched)
    watched = watched.append_column("nll_before", pa.array(before))
    size = stage.train.batch_size // stage.workers
    trainer = Trainer(learner, stage, math.ceil(max(stage.work.rows) / size), watched)
    if not fresh:
        return trainer
    with stage.checkpoint() as directory:
        if directory is not None:  # this stage was interrupted
            trainer.counters = load_state(directory, learner.net, learner.optimizer)
        elif stage.number:  # optimiser moments carry on from the stage before
            with tempfile.TemporaryDirectory() as copies:
                state = stage.work.store.local_copy(f"stages/{stage.number - 1:02d}/trainer", copies)
                load_state(Path(state), learner.net, learner.optimizer)
    return trainer


def _batches(trainer: Trainer) -> Iterator[pa.Table]:
    """This worker's share of each global batch that is still to come; empty when its shard ran out."""
    done = int(trainer.counters["step"])
    rows = trainer.stage.iter_batches(trainer.train.batch_size // trainer.stage.workers)
    batches = islice(rows, done, None)
    for _ in range(done, trainer.steps):
        yield next(batches, pa.table({}))


def _step(trainer: Trainer, batch: pa.Table) -> None:
    """One optimiser step over all workers: the mean over all response tokens of the global batch."""
    _seed_dropout(trainer)
    micro_batches = _micro_batches(trainer, batch)
    own = sum(int((micro["labels"] != IGNORED).sum()) for micro in micro_batches)
    tokens = _sum_over_workers(own)
    world = trainer.stage.workers
    nll = 0.0
    for i, micro in enumerate(micro_batches):
        with _synchronising(trainer, last=i == len(micro_batches) - 1):
            loss = _loss(trainer.train, trainer.learner.forward, micro)
            (loss * (world / tokens)).backward()  # DistributedDataParallel averages over workers
        nll += float(loss.detach())
    _update(trainer)
    trainer.counters["step"] += 1
    trainer.counters["nll"] += _sum_over_workers(nll)
    trainer.counters["tokens"] += tokens


def _seed_dropout(trainer: Trainer) -> None:
    """Draws that belong to (seed, stage, step, worker): a resumed stage then drops what it would have."""
    stage = trainer.stage
    place = (trainer.learner.config.seed, stage.number, int(trainer.counters["step"]), stage.rank)
    torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]) >> 1)


def _micro_batches(trainer: Trainer, batch: pa.Table) -> list[dict[str, Tensor]]:
    if batch.num_rows == 0:
        # A worker whose shard ran out still takes part in the all-reduce: a batch without a label, loss 0.
        return [collate([[0, 0]], [[]])]
    separator = trainer.learner.config.model.separator
    ids = encode(trainer.learner.tokenizer, batch["messages"], batch["response"], separator)
    size = trainer.train.micro_batch_size
    starts = range(0, batch.num_rows, size)
    return [collate(ids.prompt_ids[i : i + size], ids.response_ids[i : i + size]) for i in starts]


def _loss(train: TrainConfig, model: nn.Module, micro: dict[str, Tensor]) -> Tensor:
    device = get_device()
    bf16 = train.bf16 and device.type == "cuda" and torch.cuda.is_bf16_supported()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        return response_nll(model, {name: t.to(device) for name, t in micro.items()})


def _canary_items(work: Work) -> pa.Table:
    """The longest responses of the selection's first file: rounding weighs least in their mean."""
    name = f"{work.directory}/selected/{work.store.names(f'{work.directory}/selected')[0]}"
    items = work.store.read_table(name, ["item_id", "messages", "response", "response_tokens"])
    order = pc.sort_indices(items, [("response_tokens", "descending"), ("item_id", "ascending")])
    return items.take(order[: canary.ITEMS])


@torch.no_grad()
def _item_nlls(learner: Learner, items: pa.Table) -> list[float]:
    """Mean NLL of each item as the trainer computes it, without dropout; the model trains on afterwards."""
    config, net = learner.config, learner.net
    ids = encode(learner.tokenizer, items["messages"], items["response"], config.model.separator)
    net.eval()
    nlls = [
        float(_loss(config.train, net, collate([prompt], [response]))) / len(response)
        for prompt, response in zip(ids.prompt_ids, ids.response_ids, strict=True)
    ]
    net.train()
    return nlls


def _synchronising(trainer: Trainer, last: bool) -> AbstractContextManager[None]:
    """Workers exchange gradients once per step: in the backward pass of the last micro-batch."""
    if last or not isinstance(trainer.learner.forward, DistributedDataParallel):
        return nullcontext()
    return trainer.learner.forward.no_sync()


def _update(trainer: Trainer) -> None:
    learner, train = trainer.learner, trainer.train
    step = int(trainer.counters["step"])
    rate = learning_rate(train, trainer.stage.number, learner.config.stages, step, trainer.steps)
    for group in learner.optimizer.param_groups:
        group["lr"] = rate
    nn.utils.clip_grad_norm_(trainable(learner.net).values(), train.max_grad_norm)
    learner.optimizer.step()
    learner.optimizer.zero_grad(set_to_none=True)


def _sum_over_workers(value: float) -> float:
    if not dist.is_initialized():
        return value
    total = torch.tensor(value, dtype=torch.float64, device=get_device())
    dist.all_reduce(total)
    return float(total)


def _checkpoint(trainer: Trainer) -> None:
    """All workers report; rank 0 brings the state along."""
    if trainer.stage.rank != 0:
        trainer.stage.save_checkpoint(None)
        return
    with tempfile.TemporaryDirectory() as directory:
        _save_state(trainer, directory)
        trainer.stage.save_checkpoint(Path(directory))


def _save_state(trainer: Trainer, directory: str) -> None:
    save_state(Path(directory), trainer.learner.net, trainer.learner.optimizer, trainer.counters)


def _report(trainer: Trainer) -> None:
    """Trainer state, canary and model into the run directory; the report, which closes the stage, last."""
    learner, stage, counters = trainer.learner, trainer.stage, trainer.counters
    if stage.rank != 0:
        stage.report(None, {})
        return
    work = stage.work
    with tempfile.TemporaryDirectory() as directory:
        _save_state(trainer, directory)
        work.store.upload(directory, f"{work.directory}/trainer")
    expected = trainer.canary.append_column("nll_after", pa.array(_item_nlls(learner, trainer.canary)))
    work.store.write_table(f"{work.directory}/canary.parquet", expected)
    nll = counters["nll"] / counters["tokens"]
    with tempfile.TemporaryDirectory() as directory:
        save_model(learner.config, learner.net, learner.tokenizer, Path(directory))
        metrics = {"steps": int(counters["step"]), "tokens": int(counters["tokens"]), "train_nll": nll}
        stage.report(directory, metrics)
