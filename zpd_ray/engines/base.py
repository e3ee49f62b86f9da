"""What an engine is: the protocol, what it takes and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

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


@dataclass(frozen=True)
class Pulse:
    """Signs of life: numbers that only grow. items: scored, and prompts completed; steps: anything at all
    was computed. at: id of an item in hand, or "".
    """

    items: int = 0
    steps: int = 0
    at: str = ""


class EngineError(Exception):
    """The engine failed as only a fresh process mends: it is restarted, and the part done again."""


class Engine(Protocol):
    """A loaded model. ``items`` is a table with the columns of ``schema.ITEM``, in any order of rows.

    Results are in the order of the rows. The same rows give the same numbers, whatever actor computes them.
    Two threads may call at a time: while one computes, the other turns text into ids. The class says what
    kind of engine it is before it is loaded: ``reads_text`` (items need a tokenizer), ``has_weights`` (there
    is something to train), and ``check``.
    """

    reads_text: ClassVar[bool]
    has_weights: ClassVar[bool]

    @staticmethod
    def check(config: Config) -> None:
        """Raises ZpdError for what the config asks of this engine and it cannot do; loads nothing."""

    def __init__(self, config: Config, model: ModelRef, longest: int | None = None) -> None:
        """Load the model of a stage.

        longest: tokens of the longest sequence to come, where it is known; memory is planned for it.
        """

    def follow(self, model: ModelRef) -> None:
        """Take the weights of another stage from here on."""

    def score(self, items: pa.Table) -> Scores:
        """NLL and greedy matches of each reference response.

        An item without messages is scored without a prompt: what predicts its first token is the
        begin-of-text token, or the end-of-text token where the tokenizer has no other. Where all responses
        are null, the NLLs are those of the prompts, over what the user says in them (``engines.asked``).
        """

    def generate(self, items: pa.Table, rollouts: int, stage: int) -> Completions:
        """``rollouts`` completions of each prompt; greedy when one, sampled per (seed, stage, item) else."""

    def usage(self) -> dict[str, float]:
        """Amounts of work since the last call, by name: see ``rates``; empty where nothing is computed."""

    def pulse(self) -> Pulse:
        """Whether it computes, asked while it does: one that does not for ``measure.patience`` is ended."""

    def settings(self) -> dict[str, Any]:
        """What the engine derived for this model and this machine."""
