"""Workers as torch's process group joins them."""

from __future__ import annotations

from functools import partial

import torch
import torch.distributed as dist

from zpd_ray.training.step import Workers


def peers(rank: int, count: int, device: torch.device) -> Workers:
    """As this one of ``count`` sees them; device: its own. Of one worker there need be no process group."""
    if device.type == "cuda":
        torch.cuda.set_device(device)  # where collective calls go that name none
    total, most = (partial(_over_all, how, device) for how in (dist.ReduceOp.SUM, dist.ReduceOp.MAX))
    return Workers(rank, count, total, most)


def _over_all(how: dist.ReduceOp.RedOpType, device: torch.device, value: float) -> float:
    if not dist.is_initialized():
        return value
    result = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(result, how)
    return float(result)
