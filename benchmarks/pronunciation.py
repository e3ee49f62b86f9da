"""A world that nobody made for this program: a small model learns to pronounce English words.

    pip install 'zpd-ray[pronounce]'
    python benchmarks/pronunciation.py DIRECTORY --seed 1 --learning-rate 1e-3

The words, and a Llama of 0.87 M parameters that has begun to learn them, are those of examples/pronounce. The
run (config in DIRECTORY/run.toml) measures a pool of others by greedy match and trains all weights on what it
selects. DIRECTORY/stages.parquet then holds what benchmarks/replay_stages.py takes, and the last line printed
is JSON: accuracy on an evaluation set of other words, before training and after each stage.

A model with a high learning rate gets worse before it gets better, which made-up worlds do not show.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zpd_ray.config_file import load_config
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.judging import read_measured
from zpd_ray.rundir.layout import ANSWERS, POOL
from zpd_ray.rundir.records import load_metrics

GENERATE = Path(__file__).resolve().parent.parent / "examples" / "pronounce" / "generate.py"
EVAL_WORDS = 2000


def write_world(directory: Path, seed: int, items: int) -> None:
    """``pool.jsonl``, ``eval.jsonl`` and ``model/``; every reference is right."""
    sizes = {"--words": items, "--eval-words": EVAL_WORDS, "--corrupted": 0.0, "--seed": seed}
    flags = [str(word) for pair in sizes.items() for word in pair]
    subprocess.run([sys.executable, str(GENERATE), str(directory), *flags], check=True)


CONFIG = """
output = "run"
seed = {seed}
stages = {stages}
pool = {{ path = "pool.jsonl", items_per_part = 1000 }}
evaluation = {{ path = "eval.jsonl" }}
model = {{ path = "model", separator = "" }}
measure = {{ grader = "greedy_match" }}
select = {{ method = "{method}", budget = {{ fraction = {fraction} }} }}

[train]
method = "full"
epochs = 4
batch_size = 32
micro_batch_size = 32
learning_rate = {learning_rate}
"""


def stages_table(run: Run) -> pa.Table:
    """What was measured: a row per item, in order of the parts."""
    columns: dict[str, list[Any]] = {"trained_at": []}
    for part in run.store.names(POOL):
        n = 0
        for stage in range(run.config.stages):
            measured = read_measured(run, stage, ANSWERS, part)
            n = measured.num_rows
            columns.setdefault(f"nll_{stage}", []).append(measured["nll"].to_numpy())
            columns.setdefault(f"right_{stage}", []).append(measured["successes"].to_numpy().astype(np.int8))
        trained = np.full(n, -1, np.int8)
        for stage in reversed(range(run.config.stages)):
            trained[run.chosen_rows(stage, part)] = stage
        columns["trained_at"].append(trained)
    return pa.table({name: np.concatenate(parts) for name, parts in columns.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--items", type=int, default=30_000)
    parser.add_argument("--stages", type=int, default=3)
    parser.add_argument("--fraction", type=float, default=0.05)
    parser.add_argument("--method", default="random")
    options = parser.parse_args()
    directory: Path = options.directory
    if not (directory / "model" / "config.json").exists():
        write_world(directory, options.seed, options.items)
    (directory / "run.toml").write_text(CONFIG.format(**vars(options)))
    zpd_ray = [sys.executable, "-m", "zpd_ray", "run", str(directory / "run.toml")]
    subprocess.run(zpd_ray, check=True)
    config = load_config(str(directory / "run.toml"), [])
    run = Run(config, Store(config.output))
    pq.write_table(stages_table(run), directory / "stages.parquet")
    accuracy = [load_metrics(run.store, stage).accuracy for stage in (None, *range(config.stages))]
    print(json.dumps({"seed": options.seed, "learning_rate": options.learning_rate, "accuracy": accuracy}))


if __name__ == "__main__":
    main()
