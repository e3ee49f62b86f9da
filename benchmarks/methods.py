"""Items a second of what methods of the literature measure, against one sample at a time, in one run.

    python benchmarks/methods.py [--model DIR --dtype bfloat16] [--items 2000] [--rounds 2]

  ppl              a forward pass over prompt and response
  ifd              that, and one over the response alone
  data_whisperer   of each three demonstrations two questions: the NLL of the answer, and attention by layer

"loop" is the plain computation that the tests hold the scores to (tests/selection): transformers, float32, a
sample at a time; the faster of one thread and all cores. "ours" is as many processes as cores, each with a
share of the items and one engine of one thread, as scoring actors have it. Both are timed once loaded and
warm, in turns; the best round of each counts. Items are problems of GSM8K, and their last sentences and first
lines, under 64 tokens. Without --model the model has random weights and 0.2 million parameters.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from scoring import CORES, ROOT, SHORT, read, shorten
from transformers import AutoTokenizer

from tests import tiny
from tests.selection.test_in_context import PlainInContext, plain_utilities
from tests.selection.test_in_context import pool as table_of
from tests.selection.test_literature import Plain
from zpd_ray import measures
from zpd_ray.config import Config
from zpd_ray.engines import ModelRef, load

Pairs = list[tuple[str, str]]
IN_CONTEXT = {"demonstrations": 3, "queries": 2}
MEASURES = {"ppl": ["answers"], "ifd": ["answers", "alone"], "data_whisperer": ["in_context"]}
FEWER = {"data_whisperer": 4}  # times fewer items in the loop, which takes long there
WARM = 24  # items


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/gsm8k/train.jsonl.gz")
    parser.add_argument("--model", type=Path, help="a directory; left out: a tiny model, made here")
    parser.add_argument("--dtype", default="float32", help="of our engine; the loop is in float32")
    parser.add_argument("--methods", nargs="+", default=list(MEASURES), choices=MEASURES)
    parser.add_argument("--items", type=int, default=2000, help="measured by us")
    parser.add_argument("--loop-items", type=int, default=400, help="measured one at a time")
    parser.add_argument("--rounds", type=int, default=2)
    return parser.parse_args()


def config_of(model: Path, dtype: str) -> Config:
    return Config.model_validate(
        {
            "output": "unused",
            "pool": {"path": "unused"},
            "model": {"path": str(model), "dtype": dtype},
            "measure": {"grader": "tests.selection.soft:Soft"},
            "select": {"budget": {"items": 1}, "in_context": IN_CONTEXT},
            "train": {"method": "none"},
        }
    )


def loop(method: str, model: Path, pairs: Pairs) -> float:
    """Seconds of the faster of one thread and all cores, one sample at a time."""
    if method == "data_whisperer":
        return min(whisperer_loop(PlainInContext(model), pairs, threads) for threads in {1, CORES})
    plain, took = Plain(model), []
    for threads in {1, CORES}:
        torch.set_num_threads(threads)
        plain.nll(*pairs[0])
        started = time.perf_counter()
        for prompt, response in pairs:
            plain.nll(prompt, response)
            if method == "ifd":
                plain.nll(None, response)
        took.append(time.perf_counter() - started)
    return min(took)


def whisperer_loop(plain: PlainInContext, pairs: Pairs, threads: int) -> float:
    torch.set_num_threads(threads)
    plain.nll([], *pairs[0])
    started = time.perf_counter()
    plain_utilities(plain, pairs, lambda before, j: 1 / (1 + plain.nll(before, *pairs[j])), **IN_CONTEXT)
    return time.perf_counter() - started


def share(config: Config, names: list[str], items: pa.Table, barrier: Any, queue: Any) -> None:
    """One of several processes: measure when all are ready; when it began and ended."""
    torch.set_num_threads(1)
    engine = load(config, ModelRef(config.model.path))
    chosen = [(name, measures.load(name, config)) for name in names]
    for name, measure in chosen:
        measures.rows_of(name, measure, engine, items.slice(0, WARM), 0)
    barrier.wait()
    started = time.time()
    for name, measure in chosen:
        measures.rows_of(name, measure, engine, items, 0)
    queue.put((started, time.time()))


def ours(config: Config, names: list[str], items: pa.Table) -> float:
    """Seconds from the first process's start to the last one's end."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(CORES), context.Queue()
    shares = [items.take(list(range(i, len(items), CORES))) for i in range(CORES)]
    workers = [context.Process(target=share, args=(config, names, one, barrier, queue)) for one in shares]
    for worker in workers:
        worker.start()
    spans = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    return max(end for _, end in spans) - min(start for start, _ in spans)


def compare(method: str, config: Config, pairs: Pairs, options: argparse.Namespace) -> dict[str, float]:
    """Items a second of both."""
    few = pairs[: max(WARM, options.loop_items // FEWER.get(method, 1))]
    items = table_of([pairs[i % len(pairs)] for i in range(options.items)], chat=False)
    one, many = [], []
    for _ in range(options.rounds):
        one.append(len(few) / loop(method, Path(config.model.path), few))
        many.append(len(items) / ours(config, MEASURES[method], items))
    return {"loop": max(one), "ours": max(many)}


def main() -> None:
    options = parse()
    pairs = read(options.data)
    with tempfile.TemporaryDirectory() as directory:
        made = options.model or tiny.build_model(
            directory,
            texts=[text for pair in pairs for text in pair],
            vocab=1000,
            max_length=2048,
        )
        config, tokenizer = config_of(made, options.dtype), AutoTokenizer.from_pretrained(made)
        short = [pair for pair in shorten(pairs) if len(tokenizer("\n".join(pair)).input_ids) < SHORT - 1]
        print("| items | method | loop, items/s | ours, items/s | ratio |\n|---|---|---|---|---|")
        for length, chosen in (("GSM8K", pairs), (f"under {SHORT} tokens", short)):
            for method in options.methods:
                rates = compare(method, config, chosen, options)
                ratio = rates["ours"] / rates["loop"]
                print(
                    f"| {length} | {method} | {rates['loop']:.1f} | {rates['ours']:.1f} | {ratio:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
