"""How much the last turn of a prompt attends to each of the demonstrations before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from zpd_ray.engines.batching import pad
from zpd_ray.engines.demonstrations import Shown
from zpd_ray.errors import ZpdError

DEPTH = 0.4  # of the layers: 13 of 32, as the authors of Data Whisperer take for Llama-3-8B


def default_layer(model: PreTrainedModel) -> int:
    """The layer whose attention is looked at where the config names none, counted from 0."""
    return round(DEPTH * int(model.config.get_text_config().num_hidden_layers))


@torch.inference_mode()
def attention_to(model: PreTrainedModel, layer: int, rows: Sequence[Shown]) -> np.ndarray:
    """float64 (n, k): attention of the tokens from ``ask`` on to each of k demonstrations.

    Summed over the heads of a layer, and the mean over pairs of tokens: comparable between demonstrations of
    any length. Computed in the model's type, summed in float32.
    """
    ids = torch.from_numpy(pad([row.ids for row in rows], 0, "right")).to(model.device)
    weights = _weights(model, layer, ids)
    found = []
    for at, row in enumerate(rows):
        asking = weights[at, :, row.ask : len(row.ids)].float().sum((0, 1)).double()
        found.append([float(asking[a:b].sum()) / ((b - a) * (len(row.ids) - row.ask)) for a, b in row.spans])
    return np.array(found, dtype=np.float64)


class _SeenError(Exception):
    """The layer was passed: those after it need not be computed."""


def _weights(model: PreTrainedModel, layer: int, ids: torch.Tensor) -> torch.Tensor:
    """(rows, heads, tokens, tokens): the attention of one layer, from one pass up to it."""
    modules = [module for module in model.modules() if type(module).__name__.endswith("Attention")]
    if layer >= len(modules):
        raise ZpdError(
            f"select.in_context.layer = {layer}, and the model has {len(modules)} layers of attention, "
            "counted from 0; lower it, or leave it out"
        )
    seen: list[torch.Tensor] = []

    def look(module: torch.nn.Module, args: Any, out: Any) -> None:
        found = out[1] if isinstance(out, tuple) and len(out) > 1 else None
        if not isinstance(found, torch.Tensor) or found.ndim != 4:
            raise ZpdError(
                f"the model {type(model).__name__} does not tell its attention, which the measure in_context "
                "needs; take another select.method"
            )
        seen.append(found)
        raise _SeenError

    handle = modules[layer].register_forward_hook(look)
    try:
        with _told(model):
            model.base_model(input_ids=ids, use_cache=False)
    except _SeenError:
        pass
    finally:
        handle.remove()
    return seen[0]


@contextmanager
def _told(model: PreTrainedModel) -> Iterator[None]:
    """Attention by plain matrix products, which alone has weights to tell."""
    before: Any = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
