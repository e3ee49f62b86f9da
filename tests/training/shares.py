"""What tests of a model shared out have in common: steps of a few rows, taken by workers in whatever way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from tests.training.test_step import PROMPTS, RESPONSES
from zpd_ray.config import Config
from zpd_ray.engines import ModelRef
from zpd_ray.engines.model_files import load_tokenizer
from zpd_ray.training.model import load_trainable, save_model
from zpd_ray.training.sharding import gathered, sharded_loss
from zpd_ray.training.state import trainable
from zpd_ray.training.step import (
    Batch,
    Learner,
    StageProgress,
    Workers,
    accumulate,
    item_nlls,
    micro_batches,
    new_learner,
    sharded_learner,
    train_step,
)

Weights = dict[str, np.ndarray]
CPU = torch.device("cpu")

# Rows of each step's global batch: of several workers some have fewer micro-batches, or no row at all.
STEPS = [[0, 1, 2, 3, 4], [1, 2, 3], [4, 0, 2, 1, 3], [3]]
HOW: dict[str, dict[str, Any]] = {
    "lora": {"lora": {"rank": 3}},  # fewer rows than four workers
    "lora, packed": {"packing": True},
    "lora, recomputed": {"gradient_checkpointing": True},
    "lora, offloaded": {"offload": True},
    "full": {"method": "full"},
    "full, recomputed": {"method": "full", "gradient_checkpointing": True},
    "full, offloaded": {"method": "full", "offload": True},
}


def changed(config: Config, **train: Any) -> Config:
    return Config.model_validate(config.model_dump() | {"train": config.train.model_dump() | train})


def start(config: Config, workers: Workers) -> Learner:
    """As the training loop does: shared out, with DDP, or alone."""
    torch.manual_seed(workers.rank)  # whatever a worker has drawn before
    model = ModelRef(config.model.path)
    if config.train.sharding == "fsdp":
        return sharded_learner(config, sharded_loss(config, model, CPU), CPU, workers)
    net = load_trainable(config, model)
    if workers.count == 1:
        return new_learner(config, net, workers)
    return new_learner(config, net, workers, DistributedDataParallel)


def batches_of(learner: Learner, step: int) -> list[Batch]:
    """This worker's share."""
    own = STEPS[step][learner.workers.rank :: learner.workers.count]
    train = learner.config.train
    prompts, responses = [PROMPTS[i] for i in own], [RESPONSES[i] for i in own]
    return micro_batches(prompts, responses, train.micro_batch_size, train.packing)


def take(learner: Learner, progress: StageProgress, steps: list[int]) -> None:
    for step in steps:
        train_step(learner, progress, batches_of(learner, step))


def weights_of(learner: Learner) -> Weights:
    return {name: tensor.numpy() for name, tensor in gathered(learner.net, CPU, keep=True).items()}


@dataclass(frozen=True)
class Trained:
    """gradients: of the first step. weights, history: after all. nlls: of items, half way."""

    gradients: Weights
    weights: Weights
    history: dict[str, list[float]]
    nlls: list[float]


def trained(workers: Workers, config: Config) -> Trained:
    learner, progress = start(config, workers), StageProgress(0, len(STEPS))
    first = gradients(learner)
    take(learner, progress, [0, 1])
    nlls = item_nlls(learner, PROMPTS[:2], RESPONSES[:2])  # training goes on as if it were not
    take(learner, progress, [2, 3])
    return Trained(first, weights_of(learner), progress.history, nlls)


def gradients(learner: Learner) -> Weights:
    """LoRA's B is 0 at first, and with it the gradient of A: it is moved a little."""
    weights = trainable(learner.net)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.add_(0.01 if "lora_B" in name else 0.0)
    accumulate(learner, batches_of(learner, 0))
    grads = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
    whole = {name: g.full_tensor() if isinstance(g, DTensor) else g for name, g in grads.items()}
    learner.optimizer.zero_grad(set_to_none=True)
    return {name: grad.numpy().copy() for name, grad in whole.items()}


def assert_close(ours: Weights, theirs: Weights) -> None:
    """Up to rounding: AdamW moves a weight by the rate, 1e-2, however small its gradient and its error."""
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        apart = np.abs(ours[name] - weight)
        assert apart.max() < 2e-4, name
        assert apart.mean() < 2e-6, name


def every(cheap: set[tuple[str, int]]) -> list[Any]:
    """All ways with two and with four workers; those that are not cheap at night."""
    return [
        pytest.param(how, workers, marks=[] if (how, workers) in cheap else pytest.mark.nightly)
        for how in HOW
        for workers in (2, 4)
    ]


def reported(workers: Workers, config: Config, place: Path) -> None:
    learner = start(config, workers)
    take(learner, StageProgress(0, len(STEPS)), [0])
    sharded = config.train.sharding == "fsdp"
    state = gathered(learner.net, CPU, keep=workers.rank == 0) if sharded else None
    if workers.rank == 0:
        save_model(config, learner.net, load_tokenizer(config.model.path), place, state)


def assert_files_close(ours: Path, theirs: Path) -> None:
    with safe_open(ours, "pt") as one, safe_open(theirs, "pt") as other:
        assert one.metadata() == other.metadata()
    assert_close(
        {name: tensor.numpy() for name, tensor in load_file(ours).items()},
        {name: tensor.numpy() for name, tensor in load_file(theirs).items()},
    )
