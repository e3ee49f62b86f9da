"""A model shared out among workers: torch's ``fully_shard`` (FSDP2) over each block, then over the rest.

Each worker holds 1/n of the rows of every weight, of its gradient and of its moments. A block is gathered
when it is computed and given up after, so that at a time a worker has, beside its share, two blocks and what
is in no block: the embedding and the head, from a step's begin to its end, for the chunks of ``ResponseLoss``
go through the head again in the backward pass. (Zhao et al. 2023, arXiv 2304.11277.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor

from zpd_ray.config import Config
from zpd_ray.engines.base import ModelRef
from zpd_ray.errors import ZpdError
from zpd_ray.training.loss import ResponseLoss, inner
from zpd_ray.training.model import in_bf16, load_trainable, without_weights


def sharded_loss(config: Config, model: ModelRef, device: torch.device) -> ResponseLoss:
    """The loss of a stage's model, shared out; called by every worker of the process group.

    device: of this worker: the CPU, or a GPU of its own. Worker 0 alone reads the weights and passes them
    on a tensor at a time: there the whole model is in main memory once. The peak of the others, and of every
    GPU, is a share and one block, at the end a share, the embedding and the head; with ``train.offload`` the
    share is in main memory. Raises ZpdError when the model does not say what its blocks are, or on
    worker 0 as ``load_trainable``.
    """
    net = without_weights(config, model)
    source = _Source(load_trainable(config, model) if dist.get_rank() == 0 else None, net, device)
    loss = ResponseLoss(net, (source.told.finish,))
    loss.train()
    source.fill_buffers(net)
    options = _options(config, device)
    for module in [*blocks(net), loss]:
        source.fill(module)
        fully_shard(module, **options)
    for module in loss.modules():
        if device.type == "cpu" and isinstance(module, FSDPModule):  # gloo adds, and knows no average
            module.set_force_sum_reduction_for_comms(True)
    return loss


def blocks(net: nn.Module) -> list[nn.Module]:
    """The parts that the model names as its blocks, inner ones first. Raises ZpdError when it names none."""
    model: Any = inner(net)
    kinds = set(getattr(model, "_no_split_modules", None) or [])
    found = [module for module in net.modules() if type(module).__name__ in kinds]
    if not found:
        raise ZpdError(
            f"train.sharding = 'fsdp' shards a model block by block, and {type(model).__name__} does not "
            "name its blocks (_no_split_modules); expected a model that does, or train.sharding = 'none'"
        )
    return found[::-1]


def is_sharded(module: nn.Module) -> TypeGuard[FSDPModule]:
    """Whether ``sharded_loss`` has made it."""
    return isinstance(module, FSDPModule)


def exchange_gradients(loss: FSDPModule, now: bool) -> None:
    """Whether the next backward pass sums gradients over the workers, or adds to those that wait for it."""
    loss.set_requires_gradient_sync(now)


def put_away(loss: FSDPModule) -> None:
    """Give up the embedding and the head after a forward pass that no backward pass follows."""
    loss.reshard()


def clip_shares(weights: Sequence[nn.Parameter], most: float, total: Callable[[float], float]) -> None:
    """``clip_grad_norm_`` over the gradients of all workers. total: the sum of a number over them.

    Not torch's own, whose norm needs a process group for wherever the shares are: with train.offload they are
    in main memory, where NCCL does not reach.
    """
    shares = [_share(weight.grad) for weight in weights if weight.grad is not None]
    own = nn.utils.get_total_norm(shares)
    norm = total(float(own) ** 2) ** 0.5
    if norm + 1e-6 > most:
        for share in shares:
            share.mul_(most / (norm + 1e-6))


def gathered(net: nn.Module, device: torch.device, keep: bool) -> dict[str, Tensor]:
    """All that is trained, whole, in main memory, where ``keep``; called by every worker.

    On each worker's device one tensor at a time is whole. Of a full model buffers that it saves, too.
    """
    whole: dict[str, Tensor] = {}
    for name, weight in net.named_parameters():
        if weight.requires_grad:
            tensor = _whole(weight.detach(), device)
            if keep:
                whole[name] = tensor.cpu()
    kept = set(net.state_dict())
    buffers = {name: buffer.cpu() for name, buffer in net.named_buffers() if name in kept}
    return whole | buffers if keep else {}


@dataclass(frozen=True)
class _Told:
    """What worker 0 tells of the model that it has loaded: by name shape, type and whether it is trained."""

    tensors: dict[str, tuple[torch.Size, torch.dtype, bool]]
    finish: Any
    generation: Any


class _Source:
    """The model that worker 0 has loaded, passed on a tensor at a time."""

    def __init__(self, loaded: nn.Module | None, net: nn.Module, device: torch.device) -> None:
        """loaded: None on the other workers. net: the same without weights."""
        self.device, self.tensors = device, dict[str, Tensor]()
        box: list[Any] = [None]
        if loaded is not None:
            self.tensors = dict(loaded.named_parameters()) | dict(loaded.named_buffers())
            told = {name: (each.shape, each.dtype, each.requires_grad) for name, each in self.tensors.items()}
            box = [_Told(told, ResponseLoss(loaded).finish, inner(loaded).generation_config)]
        dist.broadcast_object_list(box, src=0, device=device)
        self.told: _Told = box[0]
        inner(net).generation_config = self.told.generation
        self.names: dict[Tensor, str] = {weight: name for name, weight in net.named_parameters()}
        self._check(set(self.names.values()) | dict(net.named_buffers()).keys())

    def _check(self, expected: set[str]) -> None:
        if apart := sorted(expected ^ self.told.tensors.keys()):
            raise ZpdError(
                f"train.sharding = 'fsdp' builds the model from its config first, and its weights have "
                f"other names: {', '.join(apart[:3])}; expected the same; set train.sharding = 'none'"
            )

    def fill_buffers(self, net: nn.Module) -> None:
        """Buffers are whole on every worker: they are small."""
        for module_name, module in net.named_modules():
            for name in list(module._buffers):
                if module._buffers[name] is not None:
                    module._buffers[name] = self._take(f"{module_name}.{name}".removeprefix("."))

    def fill(self, module: nn.Module) -> None:
        """Weights in place of those without, but for what is sharded already; tied ones stay tied."""
        made: dict[Tensor, nn.Parameter] = {}
        for each in module.modules():
            for key, weight in each._parameters.items():
                if weight is None or weight not in self.names:
                    continue
                if weight not in made:
                    name = self.names[weight]
                    made[weight] = nn.Parameter(self._take(name), requires_grad=self.told.tensors[name][2])
                each._parameters[key] = made[weight]

    def _take(self, name: str) -> Tensor:
        """The tensor on this worker's device; worker 0 then has it no more."""
        shape, dtype, _ = self.told.tensors[name]
        if self.tensors:
            given = self.tensors[name]
            tensor = given.detach().to(self.device).contiguous()
            given.data = given.new_empty(0)
        else:
            tensor = torch.empty(shape, dtype=dtype, device=self.device)
        dist.broadcast(tensor, src=0)
        return tensor


def _options(config: Config, device: torch.device) -> dict[str, Any]:
    """Of ``fully_shard``.

    A LoRA base keeps the type of its checkpoint and autocast computes, as without sharding. Weights that are
    all trained are float32, and would be gathered so: here they are gathered in the type that computes, and
    gradients are summed in float32.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    low = config.train.method == "full" and in_bf16(config, device)
    precision = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if low else MixedPrecisionPolicy()
    offload = CPUOffloadPolicy(pin_memory=device.type == "cuda") if config.train.offload else OffloadPolicy()
    return {"mesh": mesh, "mp_policy": precision, "offload_policy": offload}


def _share(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _whole(tensor: Tensor, device: torch.device) -> Tensor:
    if not isinstance(tensor, DTensor):
        return tensor
    local = tensor.to_local().to(device)  # with train.offload it is where no process group reaches
    mesh, placements = tensor.device_mesh, tensor.placements
    moved = DTensor.from_local(local, mesh, placements, shape=tensor.shape, stride=tensor.stride())
    return moved.full_tensor()
