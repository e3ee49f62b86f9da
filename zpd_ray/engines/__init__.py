"""Engines: what computes NLLs and responses. One small file each."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from zpd_ray.config import Config


@dataclass(frozen=True)
class ModelRef:
    """The model of a stage: base weights, and a LoRA adapter on top where there is one (directories).

    canary: name in the run directory of what its trainer expects of an engine that has loaded it.
    """

    base: str
    adapter: str | None = None
    stage: int = 0
    canary: str | None = None


@dataclass(frozen=True)
class Scores:
    """What one pass over n references yields.

    nll: float32 (n,), mean over the response tokens, nats per token (NaN on error); n_tokens and n_greedy:
    int32 (n,), n_greedy -1 where first choices were not counted; error: per item the reason why it could
    not be measured, or None.
    """

    nll: np.ndarray
    n_tokens: np.ndarray
    n_greedy: np.ndarray
    error: list[str | None]


@dataclass(frozen=True)
class Completions:
    """What a model answers to n prompts.

    texts: per item its rollouts, none where the prompt was refused; error: per item why, or None.
    """

    texts: list[list[str]]
    error: list[str | None]


class EngineError(Exception):
    """The engine failed as only a fresh process mends: it is restarted, and the part done again."""


class Engine(Protocol):
    """A loaded model. ``items`` is a table with the columns of ``schema.ITEM``, in any order of rows.

    Results are in the order of the rows. The same rows give the same numbers, whatever actor computes them.
    Two threads may call at a time: while one computes, the other turns text into ids.
    """

    def follow(self, model: ModelRef) -> None:
        """Take the weights of another stage from here on."""

    def score(self, items: pa.Table) -> Scores:
        """NLL and greedy matches of each reference response."""

    def generate(self, items: pa.Table, rollouts: int, stage: int) -> Completions:
        """``rollouts`` completions of each prompt; greedy when one, sampled per (seed, stage, item) else."""

    def usage(self) -> dict[str, float]:
        """Amounts of work since the last call, by name: see ``rates``; empty where nothing is computed."""

    def settings(self) -> dict[str, Any]:
        """What the engine derived for this model and this machine."""


class Meter:
    """Seconds and tokens by kind of work: prefill (references scored) and decode (tokens generated)."""

    def __init__(self) -> None:
        self._done: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def timing(self, kind: str) -> Iterator[None]:
        """Count the seconds of a block as ``kind``."""
        started = time.perf_counter()
        yield
        self._done[f"{kind}_seconds"] += time.perf_counter() - started

    def count(self, **amounts: float) -> None:
        """Add to the amounts of these names."""
        for name, amount in amounts.items():
            self._done[name] += amount

    def take(self) -> dict[str, float]:
        """All amounts, which begin at zero again."""
        done, self._done = self._done, defaultdict(float)
        return dict(done)


# A rate = one amount / another.
RATES = {
    "prefill_tokens_per_second": ("prefill_tokens", "prefill_seconds"),
    "decode_tokens_per_second": ("decode_tokens", "decode_seconds"),
    "occupancy": ("step_tokens", "step_capacity"),  # tokens of a step / the most that it takes
    "queue_wait": ("queue_seconds", "requests"),  # seconds until a request's first step
    "cached_share": ("cached_tokens", "looked_up_tokens"),  # of prompts that other rollouts had computed
}


def rates(amounts: Mapping[str, float]) -> dict[str, float]:
    """The rates that follow from amounts of work, where there was any."""
    return {
        name: amounts.get(above, 0.0) / amounts[below]
        for name, (above, below) in RATES.items()
        if amounts.get(below)
    }


def load(config: Config, model: ModelRef, longest: int | None = None) -> Engine:
    """The engine that the config names, with the model of a stage loaded.

    longest: tokens of the longest sequence to come, where it is known; memory is planned for it.
    """
    if config.engine.name == "simulated":
        from zpd_ray.engines.simulated import SimulatedEngine

        return SimulatedEngine(config, model)
    if config.engine.name == "vllm":
        from zpd_ray.engines.vllm.engine import VllmEngine

        return VllmEngine(config, model, longest)
    from zpd_ray.engines.transformers import TransformersEngine

    return TransformersEngine(config, model)
