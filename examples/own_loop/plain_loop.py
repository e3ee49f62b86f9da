"""A training loop of one's own in plain PyTorch: selected batches stream in, an adapter goes back."""

from __future__ import annotations

import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from ray.train.torch import prepare_model
from transformers import AutoModelForCausalLM

import zpd_ray

LEARNING_RATE = 2e-3
BATCH_SIZE = 32
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def loop() -> None:
    """Runs once in every Ray Train worker and lives through all stages."""
    model = None
    for stage in zpd_ray.stages():  # waits until the next stage is measured and selected
        if model is None:  # the first stage of this process; later ones carry on
            model = load(stage.base, stage.adapter)
            forward = prepare_model(model)  # DistributedDataParallel where there are several workers
            optimizer = torch.optim.AdamW(
                (p for p in model.parameters() if p.requires_grad), lr=LEARNING_RATE
            )
        for batch in stage.iter_torch_batches(BATCH_SIZE):
            loss = forward(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        with tempfile.TemporaryDirectory() as directory:
            if stage.rank == 0:
                model.save_pretrained(directory)
            stage.report(directory, {"loss": float(loss)})


def load(base: str, adapter: str | None) -> PeftModel:
    """The base model with the adapter of the stage before, or with a new one."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        return PeftModel.from_pretrained(model, adapter, is_trainable=True)
    return get_peft_model(
        model, LoraConfig(r=16, lora_alpha=32, target_modules=MODULES, task_type="CAUSAL_LM")
    )
