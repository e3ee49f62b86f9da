"""Tokens scored per second: one sample at a time against the engine, same model and items, one run.

Rows of the table:
  loop      one sample at a time as the public IFD script does it (tianyi-lab/Cherry_LLM, data_analysis.py):
            a forward pass with labels, all logits, and a Python loop over the tokens that takes log-softmax
            and nll_loss of each; the faster of one thread and all cores
  engine    TransformersEngine.score in one process with one thread
  engines   as many such processes as cores, each with a share of the items: the ceiling for a pipeline
  pipe 1    the pipeline's measuring (Ray Data, files in and out) with one actor; from call to return, with
            starting the actor and loading the model
  pipe N    the same with as many actors as cores

Tokens are those of prompt and response. Loading a model is not timed except in the pipeline's rows; there,
"running" is the rate between the first and the last finished part. The model has random weights, which
changes no timing. Example: python benchmarks/scoring.py --items 300
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM

os.environ["OMP_NUM_THREADS"] = "1"  # of processes that are started here; torch's threads are set by hand
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import tiny  # noqa: E402
from zpd_ray.config import ClusterConfig, Config  # noqa: E402
from zpd_ray.engines import ModelRef, tokens  # noqa: E402
from zpd_ray.engines.transformers import TransformersEngine  # noqa: E402
from zpd_ray.pipeline import session  # noqa: E402
from zpd_ray.pipeline.measure import measure as measure_parts  # noqa: E402
from zpd_ray.pipeline.parts import part_name  # noqa: E402
from zpd_ray.pipeline.store import Store  # noqa: E402

PARTS = 12
SHORT = 64  # tokens; items "under 64 tokens"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/gsm8k/train.jsonl.gz")
    parser.add_argument("--items", type=int, default=300, help="items of each length (default 300)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the best of each row counts")
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--heads", type=int, default=8, help="width is 32 times this")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--batch-tokens", type=int, default=8192)
    return parser.parse_args(arguments)


def read(path: Path) -> list[tuple[str, str]]:
    """(question, answer) of every problem."""
    with gzip.open(path, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    return [(row["question"], row["answer"]) for row in rows]


def table(pairs: list[tuple[str, str]]) -> pa.Table:
    return pa.table(
        {
            "item_id": [f"item-{i}" for i in range(len(pairs))],
            "messages": [[{"role": "user", "content": question}] for question, _ in pairs],
            "response": [answer for _, answer in pairs],
        }
    )


def shorten(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The question's last sentence and the solution's first line: what fits into 64 tokens."""
    return [(question.split(". ")[-1], answer.split("\n")[0]) for question, answer in pairs]


def loop(model_path: str, items: pa.Table, threads: int) -> float:
    """Seconds of the one-at-a-time loop."""
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    tokenizer = tokens.load_tokenizer(model_path)
    rows = zip(items["messages"].to_pylist(), items["response"].to_pylist(), strict=True)
    start = time.perf_counter()
    for messages, response in rows:
        prompt = messages[0]["content"] + "\n"
        ids = tokenizer(prompt + response, return_tensors="pt").input_ids
        labels = ids.clone()
        labels[0, : len(tokenizer(prompt).input_ids)] = -100
        with torch.no_grad():
            logits = model(ids, labels=labels).logits[0]
        losses = []
        for at in range(1, ids.shape[1]):
            log_p = torch.log_softmax(logits[at - 1], dim=-1)
            losses.append(torch.nn.functional.nll_loss(log_p[None], ids[0, at][None]).item())
    return time.perf_counter() - start


def engine_seconds(engine: TransformersEngine, items: pa.Table) -> float:
    start = time.perf_counter()
    engine.score(items)
    return time.perf_counter() - start


def work(config: Config, items: pa.Table, barrier: object, queue: object) -> None:
    """One of several processes: load, wait for the others, score, say when it began and ended."""
    engine = TransformersEngine(config, ModelRef(config.model.path))
    engine.score(items.slice(0, 8))
    barrier.wait()  # type: ignore[attr-defined]
    start = time.time()
    engine.score(items)
    queue.put((start, time.time()))  # type: ignore[attr-defined]


def engines_seconds(config: Config, items: pa.Table, processes: int) -> float:
    """Seconds from the first process's start to the last one's end."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(processes), context.Queue()
    shares = [items.take(list(range(i, len(items), processes))) for i in range(processes)]
    workers = [context.Process(target=work, args=(config, share, barrier, queue)) for share in shares]
    for worker in workers:
        worker.start()
    spans = np.array([queue.get() for _ in workers])
    for worker in workers:
        worker.join()
    return float(spans[:, 1].max() - spans[:, 0].min())


def pipeline_seconds(config: Config, items: pa.Table, actors: int) -> tuple[float, float]:
    """Seconds from call to return, and those that the run would take at the rate between its parts' ends."""
    config = config.model_copy(update={"cluster": ClusterConfig(actors=actors)})
    with tempfile.TemporaryDirectory() as directory:
        store = Store(directory)
        for i in range(PARTS):
            part = items.slice(
                i * len(items) // PARTS, (i + 1) * len(items) // PARTS - i * len(items) // PARTS
            )
            store.write_table(f"pool/{part_name(i)}", part)
        store.write_json("pool.json", {"items": len(items)})
        start = time.perf_counter()
        measure_parts(config, store, ModelRef(config.model.path), "pool", "measured")
        seconds = time.perf_counter() - start
        ends = sorted(path.stat().st_mtime for path in Path(directory, "measured").glob("part-*"))
    # The first end of each actor is where running starts; parts have equal numbers of items.
    return seconds, (ends[-1] - ends[actors - 1]) * PARTS / (PARTS - actors)


def measure(config: Config, items: pa.Table, rounds: int) -> dict[str, float]:
    """Best seconds of each row; rounds are interleaved so that a busy machine slows all alike."""
    path, cores = config.model.path, os.cpu_count() or 1
    engine = TransformersEngine(config, ModelRef(path))
    best: dict[str, float] = {}
    for _ in range(rounds):
        seconds = {"loop": min(loop(path, items, threads) for threads in {1, cores})}
        torch.set_num_threads(1)
        seconds["engine"] = engine_seconds(engine, items)
        seconds["engines"] = engines_seconds(config, items, cores)
        for actors in (1, cores):
            name = f"pipe {actors}"
            seconds[name], seconds[f"{name} running"] = pipeline_seconds(config, items, actors)
        best = {name: min(value, best.get(name, value)) for name, value in seconds.items()}
    return best


def report(name: str, items: pa.Table, path: str, seconds: dict[str, float]) -> None:
    encoded = tokens.encode(tokens.load_tokenizer(path), items["messages"], items["response"], "\n")
    lengths = np.array(
        [[len(p), len(r)] for p, r in zip(encoded.prompt_ids, encoded.response_ids, strict=True)]
    )
    total = lengths.sum()
    print(f"\n{name}: {len(items)} items, mean {lengths.mean(0).round(1)} tokens of prompt and response")
    for row, value in seconds.items():
        print(f"  {row:14s} {total / value:9.0f} tokens/s   {seconds['loop'] / value:5.2f} x loop")


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    session.start(ClusterConfig(), cpus=(os.cpu_count() or 1) + 1)
    session.quiet()
    pairs = read(args.data)
    with tempfile.TemporaryDirectory() as directory:
        path = str(
            tiny.build_model(
                directory,
                texts=[text for pair in pairs for text in pair],
                vocab=args.vocab,
                heads=args.heads,
                layers=args.layers,
                max_length=1024,
            )
        )
        config = Config.model_validate(
            {
                "output": "unused",
                "pool": {"path": "unused"},
                "model": {"path": path},
                "engine": {"batch_tokens": args.batch_tokens},
                "select": {"budget": {"items": 1}},
            }
        )
        count = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(path).parameters())
        print(
            f"model: {count / 1e6:.1f}M parameters, {args.layers} layers, width {32 * args.heads}, "
            f"{args.vocab} logits; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        )
        tokenizer = tokens.load_tokenizer(path)
        short = [pair for pair in shorten(pairs) if len(tokenizer("\n".join(pair)).input_ids) < SHORT - 1]
        for name, chosen in (("GSM8K", pairs), (f"under {SHORT} tokens", short)):
            items = table(chosen[: args.items])
            report(name, items, path, measure(config, items, args.rounds))


if __name__ == "__main__":
    main()
