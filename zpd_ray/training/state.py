"""Trainer state as flat tensors in safetensors: trainable weights, AdamW moments, counters. No pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import AdamW

FILE = "trainer.safetensors"
HISTORY = "history."
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that the optimiser moves, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def save_state(
    directory: Path,
    model: nn.Module,
    optimizer: AdamW,
    counters: dict[str, float],
    history: Mapping[str, list[float]] | None = None,
) -> None:
    """Write ``trainer.safetensors``: float32 weights and moments, float64 counters and histories."""
    numbers: dict[str, float | list[float]] = {f"counter.{name}": value for name, value in counters.items()}
    numbers |= {f"{HISTORY}{name}": values for name, values in (history or {}).items()}
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}
    for name, parameter in trainable(model).items():
        tensors[f"weight.{name}"] = parameter.detach().cpu().contiguous()
        for moment, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{moment}.{name}"] = value.detach().cpu().contiguous()
    save_file(tensors, directory / FILE)


def load_state(directory: Path, model: nn.Module, optimizer: AdamW) -> dict[str, float]:
    """Put weights and moments back and return the counters. The names must be those of the model."""
    tensors = load_file(directory / FILE)
    for name, parameter in trainable(model).items():
        parameter.data.copy_(tensors[f"weight.{name}"])
        moments = {m: tensors[f"{m}.{name}"] for m in MOMENTS if f"{m}.{name}" in tensors}
        if moments:
            optimizer.state[parameter] = {m: _placed(m, value, parameter) for m, value in moments.items()}
    prefix = "counter."
    return {key[len(prefix) :]: float(value) for key, value in tensors.items() if key.startswith(prefix)}


def load_history(directory: Path) -> dict[str, list[float]]:
    """The histories that were saved with a state, by name."""
    with safe_open(directory / FILE, "pt") as file:
        names = [name for name in file.keys() if name.startswith(HISTORY)]  # noqa: SIM118 (it is no dict)
        return {name[len(HISTORY) :]: file.get_tensor(name).tolist() for name in names}


def _placed(moment: str, value: Tensor, parameter: nn.Parameter) -> Tensor:
    # AdamW keeps its step counter on the CPU whatever the device of the weights.
    return value if moment == "step" else value.to(parameter.device)
