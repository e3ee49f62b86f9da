"""Log-probabilities of reference tokens from a causal language model, without its full logits.

A vocabulary of 128,000 makes logits the largest tensor of a forward pass by far. Here the decoder runs once
over the batch, the hidden states that predict response tokens are gathered, and the head is applied to a
chunk of them at a time. Rows are padded on the right: under a causal mask no token sees the padding after it,
so no attention mask is needed at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from zpd_ray.engines.batching import pad
from zpd_ray.engines.encoding import TokenScores

# Logits held at a time: 16 MiB of float32 stay in a CPU's cache; a GPU wants large products. Fewer rows than
# 64 make the product of a CPU slow (measured: 52 GFLOP/s at 32 rows, 66 at 64, 81 at 128).
CHUNK_ELEMENTS = {"cpu": 2**22, "cuda": 2**26}
CHUNK_ROWS = 64
FORWARD_POSITIONS = 256  # positions at a time through a model's own forward: each time is a pass
LARGE_LOGIT = 50.0  # where a soft cap bends visibly


@dataclass(frozen=True)
class Finish:
    """What a model does to its head's output: nothing, a soft cap at ``by``, times ``by``, or over ``by``."""

    kind: Literal["as it is", "cap", "times", "over"] = "as it is"
    by: float = 1.0

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Float32 logits of the head to those of the model."""
        if self.kind == "as it is":
            return logits
        if self.kind == "cap":
            return self.by * torch.tanh(logits / self.by)
        return logits * self.by if self.kind == "times" else logits / self.by


@torch.inference_mode()
def score_tokens(
    model: PreTrainedModel, finish: Finish | None, rows: Sequence[Sequence[int]], prompts: Sequence[int]
) -> TokenScores:
    """Scores of the tokens after the prompt. rows: ids of prompt + response; prompts: lengths of the prompts.

    finish: what ``find_finish`` found for the model.
    """
    ids = torch.from_numpy(pad(rows, 0, "right")).to(model.device)
    spans = [(prompt - 1, len(row) - 1) for row, prompt in zip(rows, prompts, strict=True)]
    parts = _forward_logits(model, ids, spans) if finish is None else _head_logits(model, finish, ids, spans)
    scores = [_reference(logits, targets) for logits, targets in parts]
    logp, greedy = (torch.cat(column).cpu().numpy() for column in zip(*scores, strict=True))
    return TokenScores(logp, greedy)


@torch.no_grad()  # not inference_mode: a buffer that the model makes anew could not be trained with
def find_finish(model: PreTrainedModel) -> Finish | None:
    """What the model does to its head's output, where that is known; None asks for its own forward.

    Most do nothing; Gemma 2 caps (c tanh(x / c)), Cohere multiplies, Granite divides. Small logits would hide
    a cap, so the head's output is blown up on its way through forward, and what comes out is compared.
    """
    seen: dict[str, torch.Tensor] = {}

    def blow_up(head: torch.nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor:
        seen["input"], seen["output"] = args[0], out * (LARGE_LOGIT / out.abs().max().clamp_min(1e-30))
        return seen["output"].clone()  # some models finish in place

    ids = torch.arange(8, device=model.device)[None] % vocabulary(model)
    head = model.get_output_embeddings()
    if head is None:
        return None
    handle = head.register_forward_hook(blow_up)
    try:
        logits = model(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()
    hidden = getattr(model.base_model(input_ids=ids, use_cache=False), "last_hidden_state", None)
    if hidden is None or not seen or not _same(hidden, seen["input"]):
        return None
    return next((f for f in _finishes(model) if _same(logits, f(seen["output"].float()))), None)


def vocabulary(model: PreTrainedModel) -> int:
    """How many tokens the model knows."""
    return int(model.config.get_text_config().vocab_size)


def chunk_rows(model: PreTrainedModel, device: str) -> int:
    """Hidden states that go through the head at a time; device: "cpu" or "cuda"."""
    return max(CHUNK_ROWS, CHUNK_ELEMENTS[device] // vocabulary(model))


def _finishes(model: PreTrainedModel) -> Iterator[Finish]:
    config = model.config.get_text_config()
    cap, times, over = (
        getattr(config, name, None) for name in ("final_logit_softcapping", "logit_scale", "logits_scaling")
    )
    yield Finish()
    if cap:
        yield Finish("cap", cap)
    if times:
        yield Finish("times", times)
    if over:
        yield Finish("over", over)


def _head_logits(
    model: PreTrainedModel, finish: Finish, ids: torch.Tensor, spans: list[tuple[int, int]]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Chunks of (float32 logits, targets) at the positions of ``spans``, from one pass of the decoder."""
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    width = ids.shape[1]
    where = np.concatenate([np.arange(start, stop) + i * width for i, (start, stop) in enumerate(spans)])
    at = torch.from_numpy(where).to(ids.device)
    states, targets = hidden.flatten(0, 1)[at], ids.flatten()[at + 1]
    head = model.get_output_embeddings()
    chunk = chunk_rows(model, ids.device.type)
    for state, target in zip(states.split(chunk), targets.split(chunk), strict=True):
        yield finish(head(state).float()), target


def _forward_logits(
    model: PreTrainedModel, ids: torch.Tensor, spans: list[tuple[int, int]]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The same from the model's own forward, row by row: right for any model, and slower."""
    for row, (start, stop) in zip(ids, spans, strict=True):
        for at in torch.arange(start, stop, device=ids.device).split(FORWARD_POSITIONS):
            prefix = row[None, : int(at[-1]) + 1]
            yield model(input_ids=prefix, use_cache=False, logits_to_keep=at).logits[0].float(), row[at + 1]


def _reference(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logp = -torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    greedy = logits.gather(1, targets[:, None])[:, 0] == logits.amax(1)
    # The largest value is had much faster than its index, which only a tie needs: the first one is chosen.
    top = greedy.nonzero()[:, 0]
    greedy[top] = logits[top].argmax(1) == targets[top]
    return logp, greedy


def _same(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Equal up to the rounding of the coarser of the two."""
    coarse = max(1e-3, 2 * max(torch.finfo(x.dtype).eps, torch.finfo(y.dtype).eps))
    return x.shape == y.shape and torch.allclose(x.float(), y.float(), rtol=coarse, atol=1e-3)
