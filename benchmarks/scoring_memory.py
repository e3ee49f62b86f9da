"""Peak memory of scoring long prompts at a large vocabulary: the engines against a whole-batch log-softmax.

Each row is a process of its own: it loads the model, scores one short item, then all items, and tells its
peak resident memory and what that is above the weights. "naive" is what scripts do: all logits of a padded
batch in float32, log-softmax over them, gather. Example: python benchmarks/scoring_memory.py --tokens 4000
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
MIB = 2**20
WAYS = ("transformers", "vllm", "naive")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=4000, help="of a prompt (default 4000)")
    parser.add_argument("--vocab", type=int, default=128_000)
    parser.add_argument("--way", choices=WAYS, help="measure one of them in this process")
    parser.add_argument("--model", help="for --way")
    return parser.parse_args()


def peak() -> float:
    """MiB of resident memory, at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


def measure(args: argparse.Namespace) -> None:
    import pyarrow as pa

    from zpd_ray.config import Config
    from zpd_ray.engines import ModelRef, load

    sections = {"name": args.way} if args.way != "naive" else {"name": "transformers"}
    config = Config.model_validate(
        {
            "output": "unused",
            "pool": {"path": "unused"},
            "model": {"path": args.model},
            "engine": sections,
            "select": {"budget": {"items": 1}},
            "train": {"method": "none"},
        }
    )
    prompt = "~" * args.tokens  # one token each
    items = pa.table(
        {
            "item_id": [f"item-{i}" for i in range(args.items)],
            "messages": [[{"role": "user", "content": prompt}]] * args.items,
            "response": ["yes, " * 20] * args.items,
        }
    )
    short = items.slice(0, 1).set_column(1, "messages", pa.array([[{"role": "user", "content": "~"}]]))
    engine = load(config, ModelRef(args.model))
    engine.score(short)
    before = peak()
    if args.way == "naive":
        import torch

        rows = engine.encoder.rows(items)  # type: ignore[attr-defined]
        ids = torch.tensor(rows.ids)
        with torch.inference_mode():
            logp = engine.network.model(ids).logits.float().log_softmax(-1)  # type: ignore[attr-defined]
            logp[:, :-1].gather(2, ids[:, 1:, None])
    else:
        assert engine.score(items).error == [None] * args.items
    print(f"PEAK {before:.0f} {peak():.0f}")


def main() -> None:
    args = parse()
    if args.way:
        measure(args)
        return
    from tests import tiny

    with tempfile.TemporaryDirectory() as directory:
        tiny.build_model(directory, vocab=args.vocab, max_length=args.tokens + 200)
        weights = sum(file.stat().st_size for file in Path(directory).glob("*.safetensors")) / MIB
        print(f"{args.items} prompts of {args.tokens} tokens, {args.vocab} logits, weights {weights:.0f} MiB")
        for way in WAYS:
            flags = [
                "--way",
                way,
                "--model",
                directory,
                "--items",
                str(args.items),
                "--tokens",
                str(args.tokens),
            ]
            done = subprocess.run([sys.executable, __file__, *flags], capture_output=True, text=True)
            told = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("PEAK")]
            if not told:
                print(f"  {way:12s} failed: {done.stderr.strip().splitlines()[-1:]} (exit {done.returncode})")
                continue
            before, after = map(float, told[0])
            print(
                f"  {way:12s} {before:6.0f} MiB loaded and warm, {after:6.0f} MiB at its peak, "
                f"{after - weights:6.0f} MiB above the weights",
                flush=True,
            )


if __name__ == "__main__":
    main()
