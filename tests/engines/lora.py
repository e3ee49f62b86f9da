"""LoRA adapters that do something: peft begins with B = 0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

TARGETS = ("q_proj", "v_proj", "down_proj")


def make_adapter(model_dir: Path, directory: Path, seed: int, targets: Sequence[str] = TARGETS) -> Path:
    """An adapter with random weights, saved into ``directory``."""
    torch.manual_seed(seed)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(model_dir), LoraConfig(r=4, target_modules=list(targets))
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    model.save_pretrained(directory)
    return directory
