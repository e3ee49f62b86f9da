"""Several workers on this machine: forked processes in a process group of gloo, without Ray."""

from __future__ import annotations

import multiprocessing
import pickle
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from zpd_ray.training.peers import peers

SECONDS = 120.0


def in_world(count: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """What ``function(workers, *args)`` returns in each of ``count`` workers, by rank."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        children = [
            context.Process(target=_child, args=(rank, count, place, function, args), daemon=True)
            for rank in range(count)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join(SECONDS)
        for child in children:
            child.kill()
        told = [place / f"{rank}.pickle" for rank in range(count)]
        assert all(file.exists() for file in told), f"one of {count} workers said nothing"
        results = [pickle.loads(file.read_bytes()) for file in told]
    failed = [result for result in results if isinstance(result, _Failure)]
    assert not failed, failed[0].told
    return results


class _Failure:
    def __init__(self, told: str) -> None:
        self.told = told


def _child(rank: int, count: int, place: Path, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{place}/store", rank=rank, world_size=count)
    try:
        result = function(peers(rank, count, torch.device("cpu")), *args)
    except BaseException:
        result = _Failure(traceback.format_exc())
    (place / f"{rank}.new").write_bytes(pickle.dumps(result))
    (place / f"{rank}.new").rename(place / f"{rank}.pickle")
