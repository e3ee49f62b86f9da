"""Tokens scored per second: one sample at a time against the engines and the pipeline, in one run.

Rows of the table, for GSM8K-length items and for items under 64 tokens:
  loop        one sample at a time as the public IFD script does it (tianyi-lab/Cherry_LLM, data_analysis.py):
              a forward pass with labels, all logits, and a Python loop over the tokens that takes log-softmax
              and nll_loss of each; the faster of one thread and all cores
  bare N      as many processes as cores, each with a share of the items, nothing but the engine: for
              transformers TransformersEngine.score, for vLLM LLM.generate on the texts
  ids N       for vLLM, the same on token ids that were made before
  pipeline N  the pipeline's measuring (Ray Data, scoring actors, files in and out), between its first and its
              last finished part
  whole       the same from call to return, engines started before

The pool repeats the items until it takes --seconds. Tokens are those of prompt and response. The model has
random weights, which changes no timing. "idle" is the share of the actors' time, from call to return, after
their own last part. Example:
python benchmarks/scoring.py --engine vllm --seconds 20
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM

os.environ["OMP_NUM_THREADS"] = "1"  # of processes that are started here; torch's threads are set by hand
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import tiny  # noqa: E402
from zpd_ray.config import ClusterConfig, Config  # noqa: E402
from zpd_ray.engines import ModelRef, load, model_files  # noqa: E402
from zpd_ray.engines.encoding import Encoder  # noqa: E402
from zpd_ray.pipeline.cluster import session  # noqa: E402
from zpd_ray.pipeline.cluster.parts import part_name  # noqa: E402
from zpd_ray.pipeline.cluster.session import Session  # noqa: E402
from zpd_ray.pipeline.measure.measure import measure  # noqa: E402
from zpd_ray.rundir import Run, Store  # noqa: E402
from zpd_ray.rundir.layout import ANSWERS  # noqa: E402
from zpd_ray.rundir.records import load_events  # noqa: E402

SHORT = 64  # tokens; items "under 64 tokens"
PART = 2000  # items, the default of pool.items_per_part
LOOP_ITEMS = 1000
CORES = os.cpu_count() or 1


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/gsm8k/train.jsonl.gz")
    parser.add_argument("--engine", choices=["transformers", "vllm"], default="transformers")
    parser.add_argument("--seconds", type=float, default=60, help="what the pool should take (default 60)")
    parser.add_argument("--rounds", type=int, default=2, help="rounds; the best of each row counts")
    parser.add_argument("--vocab", type=int, default=1000)
    parser.add_argument("--heads", type=int, default=2, help="width is 32 times this")
    parser.add_argument("--layers", type=int, default=2)
    return parser.parse_args(arguments)


def read(path: Path) -> list[tuple[str, str]]:
    """(question, answer) of every problem."""
    with gzip.open(path, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    return [(row["question"], row["answer"]) for row in rows]


def table(pairs: list[tuple[str, str]], count: int) -> pa.Table:
    """``count`` items, the pairs over and over."""
    picked = [pairs[i % len(pairs)] for i in range(count)]
    return pa.table(
        {
            "item_id": [f"item-{i}" for i in range(count)],
            "messages": [[{"role": "user", "content": question}] for question, _ in picked],
            "response": [answer for _, answer in picked],
        }
    )


def shorten(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The question's last sentence and the solution's first line: what fits into 64 tokens."""
    return [(question.split(". ")[-1], answer.split("\n")[0]) for question, answer in pairs]


def loop_seconds(model_path: str, items: pa.Table, threads: int) -> float:
    """Seconds of the one-at-a-time loop."""
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    tokenizer = model_files.load_tokenizer(model_path)
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


def bare(config: Config, items: pa.Table, barrier: Any, queue: Any) -> None:
    """One of several processes: load, warm up, and each way when all are there; when they began and ended."""
    engine: Any = load(config, ModelRef(config.model.path))
    work = [items.slice(at, PART) for at in range(0, len(items), PART)]
    engine.score(work[0].slice(0, 200))
    ways = vllm_ways(engine, work) if config.engine.name == "vllm" else {"bare": (engine.score, work)}
    spans = {}
    for name, (compute, parts) in ways.items():
        barrier.wait()
        start = time.time()
        for part in parts:
            compute(part)
        spans[name] = (start, time.time())
    queue.put(spans)


def vllm_ways(engine: Any, work: list[pa.Table]) -> dict[str, tuple[Callable[[Any], object], list[Any]]]:
    """What is called with each part: on texts as a user has them, without our statistics; and on ids."""
    from vllm import LLM, SamplingParams, TokensPrompt

    asked = SamplingParams(
        max_tokens=1, temperature=0, prompt_logprobs=0, flat_logprobs=True, detokenize=False
    )
    theirs = {"skip_tokenizer_init": False, "disable_log_stats": True}  # the defaults
    with_tokenizer = LLM(engine.base, **engine.arguments | theirs)
    texts = [
        [turns[0]["content"] + "\n" + reply for turns, reply in zip(*columns, strict=True)]
        for columns in ([part[name].to_pylist() for name in ("messages", "response")] for part in work)
    ]
    ids = [[TokensPrompt(prompt_token_ids=row) for row in engine.encoder.rows(part).ids] for part in work]
    return {
        "bare": (lambda part: with_tokenizer.generate(part, asked, use_tqdm=False), texts),
        "ids": (lambda part: engine.llm.generate(part, asked, use_tqdm=False), ids),
    }


def bare_seconds(config: Config, items: pa.Table) -> dict[str, float]:
    """Seconds of each way, from the first process's start to the last one's end."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(CORES), context.Queue()
    shares = [items.take(list(range(i, len(items), CORES))) for i in range(CORES)]
    workers = [context.Process(target=bare, args=(config, share, barrier, queue)) for share in shares]
    for worker in workers:
        worker.start()
    spans = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    return {
        f"{name} {CORES}": max(span[name][1] for span in spans) - min(span[name][0] for span in spans)
        for name in spans[0]
    }


def write_pool(store: Store, name: str, items: pa.Table, part: int = PART) -> None:
    for index, at in enumerate(range(0, len(items), part)):
        store.write_table(f"{name}/{part_name(index)}", items.slice(at, part))
    store.write_json(f"{name}.json", {"items": len(items)})


def pipeline_seconds(config: Config, items: pa.Table) -> dict[str, float]:
    """Seconds from call to return, those at the rate between the parts' ends, and the share of idling."""
    with tempfile.TemporaryDirectory() as directory:
        run, model = Run(config, Store(directory)), ModelRef(config.model.path)
        store = run.store
        write_pool(store, "warm", items.slice(0, 2 * CORES * 100), part=100)  # some for every actor
        write_pool(store, "pool", items)
        with Session(run) as started:
            measure(started, ANSWERS, model, "warm", "warmed")  # the engines start here
            start = time.perf_counter()
            measure(started, ANSWERS, model, "pool", "measured")
            whole = time.perf_counter() - start
        ends = sorted(path.stat().st_mtime for path in Path(directory, "measured").glob("part-*"))
        used = load_events(store)[-1].details["scorers"]
    # The first end of each actor is where running starts; parts have equal numbers of items.
    running = (ends[-1] - ends[CORES - 1]) * len(ends) / (len(ends) - CORES)
    idle = sum(row["idle_at_end"] for row in used) / (CORES * whole)
    return {f"pipeline {CORES}": running, "whole": whole, "idle": idle}


def compare(config: Config, pairs: list[tuple[str, str]], seconds: float, rounds: int) -> None:
    """Print the table of one length of items."""
    encoder = Encoder(config, config.model.path)
    few = table(pairs, LOOP_ITEMS)
    engine = load(
        config.model_copy(update={"engine": config.engine.model_copy(update={"name": "transformers"})}),
        ModelRef(config.model.path),
    )
    engine.score(few)
    started = time.perf_counter()
    engine.score(few)
    per_item = (time.perf_counter() - started) / LOOP_ITEMS
    count = max(8 * CORES, int(seconds * 1.5 / per_item) // PART) * PART
    items = table(pairs, count)
    best: dict[str, float] = {}
    for _ in range(rounds):
        took = {"loop": min(loop_seconds(config.model.path, few, n) for n in {1, CORES}) * count / LOOP_ITEMS}
        torch.set_num_threads(1)
        took |= bare_seconds(config, items) | pipeline_seconds(config, items)
        best = {name: min(value, best.get(name, value)) for name, value in took.items()}
    rows = encoder.rows(few)
    mean = (rows.prompt + rows.response).mean()
    idle = best.pop("idle")
    print(f"\n{count} items, mean {rows.prompt.mean():.1f} + {rows.response.mean():.1f} tokens", flush=True)
    for name, value in best.items():
        print(
            f"  {name:12s} {value:7.1f} s  {mean * count / value:9.0f} tokens/s  "
            f"{best['loop'] / value:5.2f} x loop  {best[f'bare {CORES}'] / value:5.2f} x bare"
        )
    print(f"  idle at the end {idle:.1%} of the actors' time", flush=True)


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    session.start(ClusterConfig(), cpus=CORES)
    session.set_up_data()
    pairs = read(args.data)
    with tempfile.TemporaryDirectory() as directory:
        texts = [text for pair in pairs for text in pair]
        shape = {"vocab": args.vocab, "heads": args.heads, "layers": args.layers, "max_length": 1024}
        path = str(tiny.build_model(directory, texts=texts, **shape))
        config = Config.model_validate(
            {
                "output": "unused",
                "pool": {"path": "unused"},
                "model": {"path": path},
                "engine": {"name": args.engine},
                "select": {"budget": {"items": 1}},
                "train": {"method": "none"},
                "cluster": {"actors": CORES},
            }
        )
        count = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(path).parameters())
        print(
            f"{args.engine}: {count / 1e6:.1f}M parameters, {args.layers} layers, width {32 * args.heads}, "
            f"{args.vocab} logits; load average {os.getloadavg()[0]:.1f} on {CORES} cores"
        )
        tokenizer = model_files.load_tokenizer(path)
        short = [pair for pair in shorten(pairs) if len(tokenizer("\n".join(pair)).input_ids) < SHORT - 1]
        for chosen in (pairs, short):
            compare(config, chosen, args.seconds, args.rounds)


if __name__ == "__main__":
    main()
