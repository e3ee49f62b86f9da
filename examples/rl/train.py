"""TRL's GRPOTrainer on prompts that a curriculum draws, against prompts drawn uniformly. `pip install trl`.

    python examples/rl/train.py [--draw curriculum uniform] [--seeds 0] [--steps 60]

For each seed a base model is made (`arithmetic.py`), and trained twice from there with equal numbers of
rollouts. Told: greedy accuracy on 1,000 other prompts of all levels in equal shares, before and after,
and the mean share of prompts of a batch that had both right and wrong rollouts.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from typing import Any

import numpy as np
import torch
from arithmetic import (
    ASKED,
    LEVELS,
    LONGEST,
    WRONG,
    accuracy,
    correct,
    make_base,
    make_prompts,
    make_tokenizer,
)
from datasets import Dataset
from transformers import LlamaForCausalLM
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer

from zpd_ray.curriculum import Curriculum
from zpd_ray.curriculum.trl import observed, stream

PROMPTS, ROLLOUTS = 16, 8  # of a step, and of each prompt
POOL, HELD_OUT = 2000, 1000


def trained(
    base: LlamaForCausalLM, pool: Dataset, draw: str, seed: int, steps: int
) -> tuple[Any, dict[str, float]]:
    """The model after ``steps`` steps, and the mean share of prompts with both right and wrong rollouts."""
    curriculum = Curriculum(len(pool), seed=seed)
    with tempfile.TemporaryDirectory() as directory:
        trainer = GRPOTrainer(
            model=copy.deepcopy(base),
            processing_class=make_tokenizer(),
            reward_funcs=observed(curriculum, correct) if draw == "curriculum" else correct,
            train_dataset=stream(curriculum, pool, PROMPTS) if draw == "curriculum" else pool,
            args=GRPOConfig(
                output_dir=directory,
                max_steps=steps,
                per_device_train_batch_size=PROMPTS * ROLLOUTS,
                num_generations=ROLLOUTS,
                max_completion_length=LONGEST,
                shuffle_dataset=draw == "uniform",  # the stream has its order
                learning_rate=1e-4,
                lr_scheduler_type="constant",
                beta=0.0,
                seed=seed,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                bf16=False,
            ),
        )
        trainer.train()
    logs = [log["frac_reward_zero_std"] for log in trainer.state.log_history if "frac_reward_zero_std" in log]
    told = {
        "mixed": round(1.0 - float(np.mean(logs)), 3),
        "asked": round(curriculum.metrics()["asked"] * len(pool)),
    }
    return trainer.model, told


def compared(seed: int, draws: list[str], steps: int, base_steps: int) -> list[dict[str, Any]]:
    """A row per way of drawing, all from the same base model."""
    rng = np.random.default_rng([seed, 1])
    asked = make_prompts(rng, POOL, ASKED, WRONG)
    pool = Dataset.from_dict({"prompt": asked.prompt, "answer": asked.answer})
    held_out = make_prompts(rng, HELD_OUT, (1 / len(LEVELS),) * len(LEVELS))
    base = make_base(seed, base_steps)
    before = accuracy(base, held_out)
    rows = []
    for draw in draws:
        started = time.perf_counter()
        model, told = trained(base, pool, draw, seed, steps)
        right, level = accuracy(model, held_out), np.array(held_out.level)
        rows.append(
            {
                "seed": seed,
                "draw": draw,
                "rollouts": steps * PROMPTS * ROLLOUTS,
                "before": round(float(before.mean()), 3),
                "after": round(float(right.mean()), 3),
                "after, by digits": [round(float(right[level == d].mean()), 2) for d in LEVELS],
                "seconds": round(time.perf_counter() - started),
            }
            | told
        )
    return rows


def main() -> None:
    """Read the command line, and tell a JSON line per model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--draw", nargs="+", default=["curriculum", "uniform"], choices=["curriculum", "uniform"]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--steps", type=int, default=60, help="of reinforcement learning (default: %(default)s)"
    )
    parser.add_argument("--base-steps", type=int, default=160, help="of supervised training before")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a model of this size gains nothing from more
    logging.set_verbosity_error()
    for seed in options.seeds:
        for row in compared(seed, options.draw, options.steps, options.base_steps):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
