"""Completions of prompts: a loop over a key-value cache that lets finished rows go.

A sampled token is the inverse of the cumulative distribution at a uniform number that belongs to (seed,
stage, item, rollout, step). So a completion does not depend on which other rows share the batch, except where
rounding moves the distribution across that number.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import Cache, PreTrainedModel

from zpd_ray.engines.batching import pad
from zpd_ray.hashing import uniforms

# Picks the next token of each live sequence: (logits float32 (m, vocab), sequences int (m,), step) -> (m,).
Pick = Callable[[torch.Tensor, np.ndarray, int], torch.Tensor]


def pick_first(logits: torch.Tensor, sequences: np.ndarray, step: int) -> torch.Tensor:
    """The first choice: greedy decoding."""
    return logits.argmax(-1)


def picker(keys: np.ndarray, temperature: float) -> Pick:
    """Sampling at a temperature by inversion; keys: uint64, the random stream of each sequence."""

    def pick(logits: torch.Tensor, sequences: np.ndarray, step: int) -> torch.Tensor:
        u = torch.from_numpy(uniforms(keys[sequences], step)).to(logits.device)
        return invert(logits, u, temperature)

    return pick


def invert(logits: torch.Tensor, u: torch.Tensor, temperature: float) -> torch.Tensor:
    """int64 (m,): the token at which the cumulative softmax(logits / temperature) passes u.

    logits: float32 (m, vocab); u: float64 (m,) in (0, 1). Sums are float64: in float32 the tail of a large
    vocabulary would drown.
    """
    scaled = (logits - logits.max(-1, keepdim=True).values) / temperature
    cumulative = scaled.exp().cumsum(-1, dtype=torch.float64)
    at = torch.searchsorted(cumulative, u[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return at.clamp_max(logits.shape[-1] - 1)


@torch.inference_mode()
def complete(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    rollouts: int,
    limits: np.ndarray,
    stops: set[int],
    pick: Pick,
    beat: Callable[[], None] = lambda: None,
) -> list[list[int]]:
    """Ids of ``rollouts`` completions of each prompt, prompt by prompt, without the stop that ended them.

    limits: int (len(prompts),), the most new tokens of a prompt. A prompt is read once for all its rollouts.
    beat: is called at every step.
    """
    limit = np.repeat(limits, rollouts)
    tokens = np.zeros((len(limit), int(limit.max())), dtype=np.int64)
    lengths = limit.copy()
    ends = np.array(sorted(stops), dtype=np.int64)
    live = np.arange(len(limit))
    decoding = _Decoding(model, prompts)
    logits = decoding.keep(np.repeat(np.arange(len(prompts)), rollouts))
    for step in range(tokens.shape[1]):
        chosen = pick(logits, live, step)
        tokens[live, step] = chosen.cpu().numpy()
        stopped = np.isin(tokens[live, step], ends)
        lengths[live[stopped]] = np.minimum(lengths[live[stopped]], step)
        done = lengths[live] <= step + 1
        if done.all():
            break
        # Copying the cache costs about a step: worth it once an eighth of the rows has finished. A row at its
        # limit must go at once: the next position may be one that the model does not have.
        if done.mean() >= 1 / 8 or (limit[live] <= step + 1).any():
            going = np.flatnonzero(~done)
            decoding.keep(going)
            live, chosen = live[going], chosen[torch.from_numpy(going).to(chosen.device)]
        logits = decoding.step(chosen)
        beat()
    return [row[:n].tolist() for row, n in zip(tokens, lengths, strict=True)]


class _Decoding:
    """A batch under way: its cache, its latest logits, and where prompts differ in length its mask."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> None:
        self.model = model
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self.cache: Cache | None = None
        self.mask: torch.Tensor | None = None
        ids = torch.from_numpy(pad(prompts, 0, "left")).to(model.device)
        padding = torch.tensor([ids.shape[1] - len(row) for row in prompts], device=model.device)[:, None]
        at = torch.arange(ids.shape[1], device=model.device)
        self.positions = (at - padding).clamp_min(0)
        # Without padding there is no mask, and the model takes the shorter way through attention.
        if len({len(row) for row in prompts}) > 1:
            self.mask = (at >= padding).long()
        self.logits = self._forward(ids)

    def keep(self, rows: np.ndarray) -> torch.Tensor:
        """Go on with these rows (repeated ones become several); their latest logits."""
        if np.array_equal(rows, np.arange(len(self.logits))):
            return self.logits
        index = torch.from_numpy(rows).to(self.model.device)
        if self.cache is not None:
            self.cache.reorder_cache(index)
        if self.mask is not None:
            self.mask = self.mask[index]
        self.positions, self.logits = self.positions[index], self.logits[index]
        return self.logits

    def step(self, chosen: torch.Tensor) -> torch.Tensor:
        """Feed the chosen tokens; float32 (m, vocab) logits of what follows."""
        self.positions = self.positions[:, -1:] + 1
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(chosen), 1)], dim=1)
        self.logits = self._forward(chosen[:, None])
        return self.logits

    def _forward(self, ids: torch.Tensor) -> torch.Tensor:
        inputs: dict[str, torch.Tensor] = {}
        if self.mask is not None:
            inputs["attention_mask"] = self.mask
            if self.takes_positions:
                inputs["position_ids"] = self.positions
        out = self.model(
            input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1, **inputs
        )
        self.cache = out.past_key_values
        return out.logits[:, -1].float()
