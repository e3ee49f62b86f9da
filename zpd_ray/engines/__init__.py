"""Engines: what computes NLLs and responses. One small file each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from zpd_ray.config import Config


@dataclass(frozen=True)
class ModelRef:
    """The model of a stage: base weights, and a LoRA adapter on top where there is one (directories)."""

    base: str
    adapter: str | None = None
    stage: int = 0


@dataclass(frozen=True)
class Scores:
    """What one pass over n references yields.

    nll: float32 (n,), mean over the response tokens, nats per token (NaN on error); n_tokens and n_greedy:
    int32 (n,); error: per item the reason why it could not be measured, or None.
    """

    nll: np.ndarray
    n_tokens: np.ndarray
    n_greedy: np.ndarray
    error: list[str | None]


class Engine(Protocol):
    """A loaded model. ``items`` is a table with the columns of ``schema.ITEM``, in any order of rows.

    Results are in the order of the rows. The same rows give the same numbers, whatever actor computes them.
    """

    def score(self, items: pa.Table) -> Scores:
        """NLL and greedy matches of each reference response."""

    def generate(self, items: pa.Table, rollouts: int, stage: int) -> list[list[str]]:
        """``rollouts`` completions of each prompt; greedy when one, sampled per (seed, stage, item) else."""


def load(config: Config, model: ModelRef) -> Engine:
    """The engine that the config names, with the model of a stage loaded."""
    if config.engine.name == "simulated":
        from zpd_ray.engines.simulated import SimulatedEngine

        return SimulatedEngine(config, model)
    from zpd_ray.engines.transformers import TransformersEngine

    return TransformersEngine(config, model)
