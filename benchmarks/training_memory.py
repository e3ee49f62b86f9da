"""Memory and time of a training step: LoRA on a model of the shape of SmolLM2-135M, random weights, CPU.

    python benchmarks/training_memory.py [--rows 8] [--tokens 300] [--labels 150] [--ways ...] [--threads 1]

A process of its own for each way: "all logits" (the model's own forward, float32 logits of every position,
as version 0.2.0 trained), "head in chunks" (``ResponseLoss``, activations kept), "head in chunks, recomputed"
(the same and gradient checkpointing, the default at this size). Also told: the loss, and the norm of the
gradient.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from zpd_ray.training.allocator import VARIABLES
from zpd_ray.training.collate import collate
from zpd_ray.training.loss import ResponseLoss

WAYS = ("all logits", "head in chunks", "head in chunks, recomputed")
MIB = 1024


def make_net(recompute: bool) -> nn.Module:
    """134.5 million parameters (https://huggingface.co/HuggingFaceTB/SmolLM2-135M), LoRA of rank 16."""
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
            num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192,
            tie_word_embeddings=True, use_cache=False,
        )
    )  # fmt: skip
    if recompute:
        base.gradient_checkpointing_enable({"use_reentrant": False})
        base.enable_input_require_grads()
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    net = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=16, target_modules=targets))
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if "lora_B" in name:  # 0 at first, and with it the gradient of A
                weight.normal_(0.0, 0.02)
    return net.train()


def all_logits(net: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """What 0.2.0 computed."""
    logits = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    target = batch["labels"][:, 1:]
    predicts = target != -100
    return nn.functional.cross_entropy(logits[:, :-1][predicts].float(), target[predicts], reduction="sum")


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """In this process."""
    torch.set_num_threads(options.threads)
    net = make_net(options.way == WAYS[2])
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // MIB
    draws = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 49_152, (options.rows, options.tokens), generator=draws).tolist()
    cut = options.tokens - options.labels
    batch = collate([row[:cut] for row in ids], [row[cut:] for row in ids])
    forward = (lambda: all_logits(net, batch)) if options.way == WAYS[0] else _ours(net, batch)
    for _ in range(options.steps):
        net.zero_grad()
        started = time.perf_counter()
        loss = forward()
        loss.backward()
        seconds = time.perf_counter() - started
    norm = torch.stack([w.grad.norm() for w in net.parameters() if w.grad is not None]).norm()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // MIB
    told = {"loaded, MiB": loaded, "peak, MiB": peak, "seconds": round(seconds, 1)}
    return {"way": options.way, **told, "loss": loss.item(), "gradient": norm.item()}


def _ours(net: nn.Module, batch: dict[str, Tensor]) -> Any:
    loss = ResponseLoss(net)
    return lambda: loss(**batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=300, help="of prompt and response")
    parser.add_argument("--labels", type=int, default=150, help="of them, tokens of the response")
    parser.add_argument("--steps", type=int, default=1, help="seconds are those of the last")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measured(options)), flush=True)
        return
    for way in options.ways:
        own = {} if way == WAYS[0] else VARIABLES  # version 0.2.0 left the allocator as it was
        command = [sys.executable, __file__, *sys.argv[1:], "--way", way]
        subprocess.run(command, check=True, env=os.environ | own)


if __name__ == "__main__":
    main()
