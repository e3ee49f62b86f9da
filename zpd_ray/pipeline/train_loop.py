"""The function that each Ray Train worker runs for one stage."""

from __future__ import annotations

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
import ray.train
import torch
import torch.distributed as dist
from ray.train import Checkpoint
from ray.train.torch import get_device, prepare_model
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from zpd_ray.config import Config, TrainConfig
from zpd_ray.engines import ModelRef, canary
from zpd_ray.engines.tokens import encode, load_tokenizer
from zpd_ray.pipeline.store import Store
from zpd_ray.training.loss import IGNORED, collate, response_nll
from zpd_ray.training.model import load_trainable, save_model
from zpd_ray.training.schedule import learning_rate
from zpd_ray.training.state import load_state, save_state, trainable


@dataclass(frozen=True)
class TrainJob:
    """All that a worker needs to know about a stage, beside its shard of the selection."""

    config: Config
    store: Store
    model: ModelRef
    directory: str  # of the stage, in the run directory
    previous_state: str | None  # directory with the trainer state of the stage before
    steps: int
    board: Any  # actor that is told of each step


@dataclass
class Trainer:
    """What a worker holds while it steps through its shard."""

    job: TrainJob
    canary: pa.Table  # items with their NLL before the first step
    net: nn.Module  # the model itself: what is saved
    forward: nn.Module  # the same inside DistributedDataParallel: what is called
    optimizer: AdamW
    tokenizer: Any
    counters: dict[str, float] = field(default_factory=lambda: {"step": 0.0, "nll": 0.0, "tokens": 0.0})

    @property
    def train(self) -> TrainConfig:
        """The config's train section."""
        return self.job.config.train


def train_loop(settings: dict[str, TrainJob]) -> None:
    """Train on this worker's shard from the last checkpoint on, then save the result (rank 0)."""
    trainer = _set_up(settings["job"])
    for batch in _batches(trainer):
        _step(trainer, batch)
        done = int(trainer.counters["step"])
        if ray.train.get_context().get_world_rank() == 0:
            trainer.job.board.tell.remote(done)
        if done % trainer.train.checkpoint_steps == 0 and done < trainer.job.steps:
            _checkpoint(trainer)
    if ray.train.get_context().get_world_rank() == 0:
        _save_result(trainer)


def _set_up(job: TrainJob) -> Trainer:
    config = job.config
    torch.set_num_threads(max(1, int(config.cluster.cpus_per_train_worker)))
    copies = tempfile.TemporaryDirectory()  # where the run directory is remote; kept while it is read
    model = job.store.fetched(job.model, copies.name)
    net = load_trainable(config, model)
    forward = prepare_model(net)
    optimizer = AdamW(trainable(net).values(), lr=0.0, weight_decay=config.train.weight_decay)
    tokenizer = load_tokenizer(model.base)
    watched = _canary_items(job)
    nll_before = pa.array(_item_nlls(config, tokenizer, net, watched))
    watched = watched.append_column("nll_before", nll_before)
    trainer = Trainer(job, watched, net, forward, optimizer, tokenizer)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:  # this stage was interrupted
        with checkpoint.as_directory() as directory:
            trainer.counters = load_state(Path(directory), net, optimizer)
    elif job.previous_state is not None:  # optimiser moments carry on from the stage before
        load_state(Path(job.store.local_copy(job.previous_state, copies.name)), net, optimizer)
    return trainer


def _batches(trainer: Trainer) -> Iterator[pa.Table]:
    """This worker's share of each global batch that is still to come; empty when its shard ran out."""
    context = ray.train.get_context()
    shard = ray.train.get_dataset_shard(f"worker-{context.get_world_rank()}")
    size = trainer.train.batch_size // context.get_world_size()
    rows = shard.iter_batches(batch_size=size, batch_format="pyarrow", prefetch_batches=1)
    done = int(trainer.counters["step"])
    batches = islice(rows, done, None)
    for _ in range(done, trainer.job.steps):
        yield next(batches, pa.table({}))


def _step(trainer: Trainer, batch: pa.Table) -> None:
    """One optimiser step over all workers: the mean over all response tokens of the global batch."""
    _seed_dropout(trainer)
    micro_batches = _micro_batches(trainer, batch)
    own = sum(int((micro["labels"] != IGNORED).sum()) for micro in micro_batches)
    tokens = _sum_over_workers(own)
    world = ray.train.get_context().get_world_size()
    nll = 0.0
    for i, micro in enumerate(micro_batches):
        with _synchronising(trainer, last=i == len(micro_batches) - 1):
            loss = _loss(trainer.train, trainer.forward, micro)
            (loss * (world / tokens)).backward()  # DistributedDataParallel averages over workers
        nll += float(loss.detach())
    _update(trainer)
    trainer.counters["step"] += 1
    trainer.counters["nll"] += _sum_over_workers(nll)
    trainer.counters["tokens"] += tokens


def _seed_dropout(trainer: Trainer) -> None:
    """Draws that belong to (seed, stage, step, worker): a resumed stage then drops what it would have."""
    rank = ray.train.get_context().get_world_rank()
    place = (trainer.job.config.seed, trainer.job.model.stage, int(trainer.counters["step"]), rank)
    torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]) >> 1)


def _micro_batches(trainer: Trainer, batch: pa.Table) -> list[dict[str, Tensor]]:
    if batch.num_rows == 0:
        # A worker whose shard ran out still takes part in the all-reduce: a batch without a label, loss 0.
        return [collate([[0, 0]], [[]])]
    separator = trainer.job.config.model.separator
    ids = encode(trainer.tokenizer, batch["messages"], batch["response"], separator)
    size = trainer.train.micro_batch_size
    starts = range(0, batch.num_rows, size)
    return [collate(ids.prompt_ids[i : i + size], ids.response_ids[i : i + size]) for i in starts]


def _loss(train: TrainConfig, model: nn.Module, micro: dict[str, Tensor]) -> Tensor:
    device = get_device()
    bf16 = train.bf16 and device.type == "cuda" and torch.cuda.is_bf16_supported()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        return response_nll(model, {name: t.to(device) for name, t in micro.items()})


def _canary_items(job: TrainJob) -> pa.Table:
    """The longest responses of the selection's first file: rounding weighs least in their mean."""
    name = f"{job.directory}/selected/{job.store.names(f'{job.directory}/selected')[0]}"
    items = job.store.read_table(name, ["item_id", "messages", "response", "response_tokens"])
    order = pc.sort_indices(items, [("response_tokens", "descending"), ("item_id", "ascending")])
    return items.take(order[: canary.ITEMS])


@torch.no_grad()
def _item_nlls(config: Config, tokenizer: Any, model: nn.Module, items: pa.Table) -> list[float]:
    """Mean NLL of each item as the trainer computes it, without dropout; the model trains on afterwards."""
    ids = encode(tokenizer, items["messages"], items["response"], config.model.separator)
    model.eval()
    nlls = [
        float(_loss(config.train, model, collate([prompt], [response]))) / len(response)
        for prompt, response in zip(ids.prompt_ids, ids.response_ids, strict=True)
    ]
    model.train()
    return nlls


def _synchronising(trainer: Trainer, last: bool) -> AbstractContextManager[None]:
    """Workers exchange gradients once per step: in the backward pass of the last micro-batch."""
    if last or not isinstance(trainer.forward, DistributedDataParallel):
        return nullcontext()
    return trainer.forward.no_sync()


def _update(trainer: Trainer) -> None:
    job, train = trainer.job, trainer.train
    step = int(trainer.counters["step"])
    rate = learning_rate(train, job.model.stage, job.config.stages, step, job.steps)
    for group in trainer.optimizer.param_groups:
        group["lr"] = rate
    nn.utils.clip_grad_norm_(trainable(trainer.net).values(), train.max_grad_norm)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)


def _sum_over_workers(value: float) -> float:
    if not dist.is_initialized():
        return value
    total = torch.tensor(value, dtype=torch.float64, device=get_device())
    dist.all_reduce(total)
    return float(total)


def _checkpoint(trainer: Trainer) -> None:
    """All workers report; rank 0 brings the state along."""
    step = int(trainer.counters["step"])
    if ray.train.get_context().get_world_rank() != 0:
        ray.train.report({"step": step})
        return
    with tempfile.TemporaryDirectory() as directory:
        save_state(Path(directory), trainer.net, trainer.optimizer, trainer.counters)
        ray.train.report({"step": step}, checkpoint=Checkpoint.from_directory(directory))


def _save_result(trainer: Trainer) -> None:
    """Model and trainer state into the run directory, and train.json, which closes the step, last."""
    job, counters = trainer.job, trainer.counters
    with tempfile.TemporaryDirectory() as directory:
        save_model(job.config, trainer.net, job.model.base, Path(directory))
        job.store.upload(directory, f"{job.directory}/{job.config.train.result}")
    with tempfile.TemporaryDirectory() as directory:
        save_state(Path(directory), trainer.net, trainer.optimizer, counters)
        job.store.upload(directory, f"{job.directory}/trainer")
    nll_after = _item_nlls(job.config, trainer.tokenizer, trainer.net, trainer.canary)
    expected = trainer.canary.append_column("nll_after", pa.array(nll_after))
    job.store.write_table(f"{job.directory}/canary.parquet", expected)
    nll = counters["nll"] / counters["tokens"]
    result = {"steps": int(counters["step"]), "tokens": int(counters["tokens"]), "train_nll": nll}
    job.store.write_json(f"{job.directory}/train.json", result)
