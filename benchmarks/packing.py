"""Training with and without packing: tokens of text a second, padding, and whether they agree.

    python benchmarks/packing.py FILE.jsonl.gz [--items 32] [--micro 8] [--rounds 2] [--threads 2]

FILE: JSON lines with question and answer, as of GSM8K. A token stands for a word or a mark, and is drawn at
random: only lengths matter here. The model is that of ``training_memory.py`` (SmolLM2-135M's shape, random
weights, LoRA), activations computed again. The two ways take turns, after a step of each that is not counted.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from training_memory import make_net

from zpd_ray.training.loss import ResponseLoss
from zpd_ray.training.step import Batch, micro_batches

VOCABULARY = 49_152


def lengths_of(file: Path, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Words and marks of n questions and answers, drawn with seed 0: int64 (n,) each."""
    with gzip.open(file, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    drawn = np.random.default_rng(0).choice(len(rows), size=n, replace=False)
    texts = [(rows[i]["question"], rows[i]["answer"]) for i in drawn]
    counts = np.array([[len(re.findall(r"\w+|[^\w\s]", text)) for text in pair] for pair in texts])
    return counts[:, 0], counts[:, 1]


def step(net: nn.Module, loss: ResponseLoss, batches: list[Batch]) -> tuple[float, float, float]:
    """Seconds, summed NLL, and the norm of the gradient."""
    net.zero_grad()
    started, nll = time.perf_counter(), 0.0
    for batch in batches:
        summed = loss(**batch)
        summed.backward()
        nll += summed.item()
    seconds = time.perf_counter() - started
    norm = torch.stack([w.grad.norm() for w in net.parameters() if w.grad is not None]).norm()
    return seconds, nll, norm.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--items", type=int, default=32, help="in a step")
    parser.add_argument("--micro", type=int, default=8, help="rows in one forward pass")
    parser.add_argument("--rounds", type=int, default=2, help="counted steps of each way")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    prompts, responses = lengths_of(options.file, options.items)
    draw = np.random.default_rng(1)
    prompt_ids, response_ids = (
        [draw.integers(VOCABULARY, size=n).tolist() for n in lengths] for lengths in (prompts, responses)
    )
    text = int(prompts.sum() + responses.sum())
    net = make_net(recompute=True)
    loss = ResponseLoss(net)
    ways = {
        way: micro_batches(prompt_ids, response_ids, options.micro, way == "packed")
        for way in ("padded", "packed")
    }
    for number in range(options.rounds + 1):
        for way, batches in ways.items():
            seconds, nll, norm = step(net, loss, batches)
            computed = sum(batch["input_ids"].numel() for batch in batches)
            told = {"way": way, "passes": len(batches), "tokens computed": computed, "text": text}
            rate = {"seconds": round(seconds, 1), "text a second": round(text / seconds, 1)}
            if number:
                print(json.dumps(told | rate | {"loss": nll, "gradient": norm}), flush=True)


if __name__ == "__main__":
    main()
