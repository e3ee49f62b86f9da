"""Memory and time of training steps with a whole model in every worker (DDP) and with one shared out (FSDP).

    python benchmarks/sharding.py MODEL [--workers 2] [--rows 2] [--tokens 40] [--ways ...]

MODEL: a directory, such as benchmarks/smollm2.py leaves. On the CPU, workers joined by gloo, one thread each,
without Ray. A process of its own for each worker and way. Peaks are those of its resident memory: until the
model is loaded, and over the steps; the seconds are those of the last step.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from zpd_ray.config import Config
from zpd_ray.engines import ModelRef
from zpd_ray.training.allocator import VARIABLES
from zpd_ray.training.model import load_trainable
from zpd_ray.training.peers import peers
from zpd_ray.training.sharding import sharded_loss
from zpd_ray.training.step import (
    Learner,
    StageProgress,
    micro_batches,
    new_learner,
    sharded_learner,
    train_step,
)

WAYS = ("lora, ddp", "lora, fsdp", "full, ddp", "full, fsdp")
MIB = 1024  # KiB
CPU = torch.device("cpu")


def config_of(options: argparse.Namespace) -> Config:
    method, joined = options.way.split(", ")
    train = {
        "method": method,
        "sharding": "fsdp" if joined == "fsdp" else "none",
        "workers": options.workers,
        "batch_size": options.workers * options.rows,
        "micro_batch_size": options.rows,
    }
    model = {"path": options.model}
    select = {"budget": {"items": 1}}
    return Config.model_validate(
        {"output": "unused", "pool": {"path": "unused"}, "model": model, "select": select, "train": train}
    )


def learner_of(config: Config, rank: int) -> Learner:
    model, workers = ModelRef(config.model.path), peers(rank, config.train.workers, CPU)
    if config.train.sharding == "fsdp":
        return sharded_learner(config, sharded_loss(config, model, CPU), CPU, workers)
    return new_learner(config, load_trainable(config, model), workers, DistributedDataParallel)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """In this process, a worker."""
    torch.set_num_threads(1)
    config = config_of(options)
    place, count = f"file://{options.meeting}", options.workers
    dist.init_process_group("gloo", init_method=place, rank=options.rank, world_size=count)
    learner, progress = learner_of(config, options.rank), StageProgress(0, options.steps)
    loaded = peak_since()
    draws = torch.Generator().manual_seed(options.rank)
    ids = torch.randint(1000, 40_000, (options.rows, options.tokens), generator=draws).tolist()
    half = options.tokens // 2
    for _ in range(options.steps):
        started = time.perf_counter()
        batches = micro_batches([row[:half] for row in ids], [row[half:] for row in ids], options.rows)
        train_step(learner, progress, batches)
        seconds = time.perf_counter() - started
    peaks = {"loading, MiB": loaded, "steps, MiB": peak_since(), "seconds": round(seconds, 2)}
    return {"way": options.way, "worker": options.rank, **peaks, "loss": progress.history["loss"][-1]}


def peak_since() -> int:
    """MiB of resident memory at the peak since it was asked last, on Linux."""
    told = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in told.splitlines() if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return peak // MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=2, help="of a worker, in one step")
    parser.add_argument("--tokens", type=int, default=40, help="of a row, half of them of the response")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--meeting", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measured(options)), flush=True)
        return
    for way in options.ways:
        with tempfile.TemporaryDirectory() as place:
            own = ["--way", way, "--meeting", f"{place}/store", "--rank"]
            command = [sys.executable, __file__, *sys.argv[1:], *own]
            environment = os.environ | VARIABLES
            ranks = range(options.workers)
            workers = [subprocess.Popen([*command, str(rank)], env=environment) for rank in ranks]
            if any(worker.wait() for worker in workers):
                sys.exit(f"a worker of {way!r} failed")


if __name__ == "__main__":
    main()
