"""The maths of a training step: one optimiser step over a global batch, split over workers and micro-batches.

Torch only. What joins several workers (their sum, the module that averages gradients) is passed in.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from zpd_ray.config import Config
from zpd_ray.training.collate import IGNORED, collate
from zpd_ray.training.loss import ResponseLoss
from zpd_ray.training.model import in_bf16
from zpd_ray.training.packing import first_fit, pack
from zpd_ray.training.schedule import learning_rate
from zpd_ray.training.sharding import clip_shares, exchange_gradients, is_sharded, put_away
from zpd_ray.training.state import trainable

Batch = dict[str, Tensor]  # as ``collate`` or ``pack`` makes it


@dataclass(frozen=True)
class Workers:
    """The workers that train together, as one of them sees them.

    total, most: the sum and the largest of a number over all workers, which each calls at the same place.
    """

    rank: int = 0
    count: int = 1
    total: Callable[[float], float] = lambda own: own
    most: Callable[[float], float] = lambda own: own


@dataclass
class Learner:
    """What a worker keeps from stage to stage.

    net: the model itself, which is saved. loss: what of it is computed. forward: the same as it is called;
    with several workers, in a module that averages their gradients in ``backward``, such as
    DistributedDataParallel, or ``loss`` itself where ``sharding.sharded_loss`` has made it.
    """

    config: Config
    net: nn.Module
    loss: ResponseLoss
    forward: nn.Module
    optimizer: AdamW
    device: torch.device
    workers: Workers = field(default_factory=Workers)


@dataclass
class StageProgress:
    """How far a stage has come.

    counters: steps taken, and NLL (nats) and tokens summed over them. history: of each step so far its loss
    (nats per response token), learning rate and response tokens.
    """

    stage: int
    steps: int  # of the whole stage
    counters: dict[str, float] = field(default_factory=lambda: {"step": 0.0, "nll": 0.0, "tokens": 0.0})
    history: dict[str, list[float]] = field(
        default_factory=lambda: {"loss": [], "learning_rate": [], "tokens": []}
    )

    @property
    def step(self) -> int:
        """The next step, from 0."""
        return int(self.counters["step"])


def new_learner(
    config: Config,
    net: nn.Module,
    workers: Workers,
    prepare: Callable[[nn.Module], nn.Module] = lambda loss: loss,
) -> Learner:
    """A learner whose optimiser has seen nothing.

    prepare: makes ``forward`` of the loss, and may move its weights to another device.
    """
    loss = ResponseLoss(net)
    forward = prepare(loss)
    optimizer = AdamW(trainable(net).values(), lr=0.0, weight_decay=config.train.weight_decay)
    return Learner(config, net, loss, forward, optimizer, next(net.parameters()).device, workers)


def sharded_learner(config: Config, loss: ResponseLoss, device: torch.device, workers: Workers) -> Learner:
    """The same of a model that is shared out among the workers (``sharding.sharded_loss``)."""
    optimizer = AdamW(trainable(loss.net).values(), lr=0.0, weight_decay=config.train.weight_decay)
    return Learner(config, loss.net, loss, loss, optimizer, device, workers)


def train_step(
    learner: Learner,
    progress: StageProgress,
    micro_batches: list[Batch],
    done: Callable[[int], object] = lambda items: None,
) -> None:
    """One optimiser step over all workers: the mean over all response tokens of the global batch.

    micro_batches: this worker's share of the global batch, at least one (see ``micro_batches``). done: is
    told after each of them how many items are done. Changes weights, optimiser and counters.
    """
    workers = learner.workers
    seed_dropout(learner.config.seed, progress.stage, progress.step, workers.rank)
    nll, tokens = accumulate(learner, micro_batches, done)
    rate, nll = _update(learner, progress), workers.total(nll)
    progress.counters["step"] += 1
    progress.counters["nll"] += nll
    progress.counters["tokens"] += tokens
    for name, value in {"loss": nll / tokens, "learning_rate": rate, "tokens": tokens}.items():
        progress.history[name].append(value)


def micro_batches(
    prompt_ids: list[list[int]],
    response_ids: list[list[int]],
    size: int,
    packing: bool = False,
    trained: list[list[bool]] | None = None,
) -> list[Batch]:
    """Batches of at most ``size`` rows: an item a row, or packed into rows as long as the longest of them.

    trained: as of ``collate``. Where there are no items, one batch without a label, of loss 0: a worker whose
    shard ran out still takes part in what workers compute together.
    """
    if not prompt_ids:
        return [_no_rows()]
    if packing:
        lengths = [len(p) + len(r) for p, r in zip(prompt_ids, response_ids, strict=True)]
        rows = first_fit(lengths, max(lengths))
        shared = [rows[i : i + size] for i in range(0, len(rows), size)]
        return [pack(prompt_ids, response_ids, some, max(lengths), trained) for some in shared]
    starts = range(0, len(prompt_ids), size)
    cuts = [slice(i, i + size) for i in starts]
    return [collate(prompt_ids[cut], response_ids[cut], trained and trained[cut]) for cut in cuts]


def _no_rows() -> Batch:
    return collate([[0, 0]], [[]])


def seed_dropout(seed: int, stage: int, step: int, worker: int) -> None:
    """Draws that belong to these four numbers: a resumed stage then drops what it would have dropped."""
    place = (seed, stage, step, worker)
    torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]) >> 1)


def accumulate(
    learner: Learner, micro_batches: list[Batch], done: Callable[[int], object] = lambda items: None
) -> tuple[float, float]:
    """Add the gradient of the mean NLL per response token of the global batch to the weights' ``grad``.

    Returns this worker's summed NLL in nats, and the response tokens of all workers.
    """
    workers = learner.workers
    tokens = workers.total(sum(int((micro["labels"] != IGNORED).sum()) for micro in micro_batches))
    nll, items = 0.0, 0
    if is_sharded(learner.loss):  # which all workers compute together: none may be done before the others
        missing = round(workers.most(len(micro_batches))) - len(micro_batches)
        micro_batches = micro_batches + missing * [_no_rows()]
    for i, micro in enumerate(micro_batches):
        with _synchronising(learner, last=i == len(micro_batches) - 1):
            loss = _loss(learner, learner.forward, micro)
            (loss * (workers.count / tokens)).backward()  # ``forward`` averages over workers
        nll, items = nll + float(loss.detach()), items + _items(micro)
        done(items)
    return nll, tokens


def _items(micro: Batch) -> int:
    if "position_ids" in micro:
        return int((micro["position_ids"] == 0).sum())
    return int((micro["labels"] != IGNORED).any(dim=1).sum())  # none in a batch that only takes part


@torch.no_grad()
def item_nlls(
    learner: Learner,
    prompt_ids: list[list[int]],
    response_ids: list[list[int]],
    trained: list[list[bool]] | None = None,
) -> list[float]:
    """NLL of each row in nats per token, without dropout; the model trains on afterwards."""
    learner.net.eval()
    rows = micro_batches(prompt_ids, response_ids, 1, trained=trained) if prompt_ids else []
    nlls = [float(_loss(learner, learner.loss, row)) / int((row["labels"] != IGNORED).sum()) for row in rows]
    learner.net.train()
    if is_sharded(learner.loss):
        put_away(learner.loss)
    return nlls


def _loss(learner: Learner, forward: nn.Module, micro: Batch) -> Tensor:
    device = learner.device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=in_bf16(learner.config, device)):
        loss: Tensor = forward(**{name: tensor.to(device) for name, tensor in micro.items()})
    return loss


def _synchronising(learner: Learner, last: bool) -> AbstractContextManager[None]:
    """Workers exchange gradients once per step: in the backward pass of the last micro-batch.

    With shares of a whole model in each: a gradient that waits is one of whole weights.
    """
    forward, full = learner.forward, learner.config.train.method == "full"
    if is_sharded(forward):
        exchange_gradients(forward, last or full)
    if last or not isinstance(forward, DistributedDataParallel):
        return nullcontext()
    return forward.no_sync()


def _update(learner: Learner, progress: StageProgress) -> float:
    """Clip the gradient, move the weights at the rate of this step, and forget the gradient; the rate."""
    config, optimizer = learner.config, learner.optimizer
    rate = learning_rate(config.train, progress.stage, config.stages, progress.step, progress.steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
    weights = list(trainable(learner.net).values())
    if is_sharded(learner.loss):
        clip_shares(weights, config.train.max_grad_norm, learner.workers.total)
    else:
        nn.utils.clip_grad_norm_(weights, config.train.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return rate
