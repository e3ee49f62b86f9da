"""The model of a train worker: base weights with a LoRA adapter, or all weights; safetensors in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from zpd_ray.config import Config
from zpd_ray.engines import ModelRef
from zpd_ray.engines.weights import check_targets
from zpd_ray.uris import without_options

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
    _set_up(config, base)
    if not lora:
        return base.train()
    if model.adapter is not None:
        return PeftModel.from_pretrained(base, model.adapter, is_trainable=True).train()
    return _new_adapter(config, base).train()


def without_weights(config: Config, model: ModelRef) -> nn.Module:
    """What ``load_trainable`` makes, on the device "meta": every module and the shape of every tensor."""
    architecture = AutoConfig.from_pretrained(model.base, trust_remote_code=False)
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(architecture, trust_remote_code=False)
        _set_up(config, base)
        if config.train.method != "lora":
            return base.train()
        lora: Any = _lora(config) if model.adapter is None else PeftConfig.from_pretrained(model.adapter)
        lora.inference_mode = False
        drawn, lora.init_lora_weights = lora.init_lora_weights, False  # some draw from the base's weights
        net = get_peft_model(base, lora).train()
        lora.init_lora_weights = drawn
        return net


def in_bf16(config: Config, device: torch.device) -> bool:
    """Whether a step computes in bfloat16: on GPUs that can, on CPUs where the weights score in it, too."""
    if device.type == "cuda":
        return config.train.bf16 and torch.cuda.is_bf16_supported()
    return config.train.bf16 and config.model.dtype == "bfloat16"


def _set_up(config: Config, base: Any) -> None:
    base.config.use_cache = False
    if _recomputes(config, base):
        base.gradient_checkpointing_enable({"use_reentrant": False})
        base.enable_input_require_grads()


def _recomputes(config: Config, base: nn.Module) -> bool:
    """Whether activations are computed twice: as the config has it, else where the model is large."""
    if config.train.gradient_checkpointing is not None:
        return config.train.gradient_checkpointing
    return sum(weight.numel() for weight in base.parameters()) >= LARGE


def _new_adapter(config: Config, base: Any) -> nn.Module:
    lora = config.train.lora
    linear = (nn.Linear, Conv1D)  # GPT-2's linear layers are called Conv1D
    names = [name for name, module in base.named_modules() if isinstance(module, linear)]
    check_targets({name.rpartition(".")[2] for name in names}, lora.targets)
    torch.manual_seed(config.seed)
    base.name_or_path = without_options(config.model.path)  # in the adapter's file: not a machine's copy
    return get_peft_model(base, _lora(config))


def _lora(config: Config) -> LoraConfig:
    lora = config.train.lora
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
    )


def save_model(
    config: Config, model: nn.Module, tokenizer: Any, directory: Path, state: dict[str, Tensor] | None = None
) -> None:
    """The adapter, or for full fine-tuning the whole model with its tokenizer, as safetensors.

    state: the tensors of a model that holds only its share of them (``sharding.gathered``).
    """
    if isinstance(model, PeftModel):
        adapter: Any = model.peft_config["default"]
        if isinstance(adapter.target_modules, set):  # in another order in every process
            adapter.target_modules = sorted(adapter.target_modules)
    model.save_pretrained(directory, state_dict=state)  # type: ignore[operator]
    if config.train.method == "full":
        tokenizer.save_pretrained(directory)
