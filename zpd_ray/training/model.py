"""The model of a train worker: base weights with a LoRA adapter, or all weights; safetensors in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from zpd_ray.config import Config
from zpd_ray.engines import ModelRef
from zpd_ray.engines.weights import check_targets

LARGE = 100_000_000  # parameters, from which on activations outweigh the third more of time


def load_trainable(config: Config, model: ModelRef) -> nn.Module:
    """The model of a stage, ready to be trained on; a new adapter is drawn from ``config.seed``.

    Raises ZpdError when a LoRA target is not a module of the model.
    """
    lora = config.train.method == "lora"
    # The frozen base may stay in the checkpoint's type; weights that an optimiser moves are float32.
    dtype = "auto" if lora and torch.cuda.is_available() else torch.float32
    base = AutoModelForCausalLM.from_pretrained(
        model.base, dtype=dtype, use_safetensors=True, trust_remote_code=False
    )
    base.config.use_cache = False
    if _recomputes(config, base):
        base.gradient_checkpointing_enable({"use_reentrant": False})
        base.enable_input_require_grads()
    if not lora:
        return base.train()
    if model.adapter is not None:
        return PeftModel.from_pretrained(base, model.adapter, is_trainable=True).train()
    return _new_adapter(config, base).train()


def _recomputes(config: Config, base: nn.Module) -> bool:
    """Whether activations are computed twice: as the config has it, else where the model is large."""
    if config.train.gradient_checkpointing is not None:
        return config.train.gradient_checkpointing
    return sum(weight.numel() for weight in base.parameters()) >= LARGE


def _new_adapter(config: Config, base: nn.Module) -> nn.Module:
    lora = config.train.lora
    linear = (nn.Linear, Conv1D)  # GPT-2's linear layers are called Conv1D
    names = [name for name, module in base.named_modules() if isinstance(module, linear)]
    check_targets({name.rpartition(".")[2] for name in names}, lora.targets)
    torch.manual_seed(config.seed)
    return get_peft_model(
        base,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets,
        ),
    )


def save_model(config: Config, model: nn.Module, tokenizer: Any, directory: Path) -> None:
    """The adapter, or for full fine-tuning the whole model with its tokenizer, as safetensors."""
    if isinstance(model, PeftModel):
        adapter: Any = model.peft_config["default"]
        if isinstance(adapter.target_modules, set):  # in another order in every process
            adapter.target_modules = sorted(adapter.target_modules)
    model.save_pretrained(directory)  # type: ignore[operator]
    if config.train.method == "full":
        tokenizer.save_pretrained(directory)
