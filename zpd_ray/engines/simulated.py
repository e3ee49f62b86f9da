"""A model with known ability over items with known difficulty: for tests and for runs at scale.

Its truth is the one-parameter logistic model (Rasch 1960): P(right) = sigmoid(theta - b), with b ~ N(0, 1) a
function of the item's id alone. From stage 1 on ``engine.simulated.drift`` adds to it by group;
``engine.simulated.groups`` adds to theta by group, which NLLs do not know.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import expit, ndtri

from zpd_ray.engines.base import Completions, ModelRef, Pulse, Scores
from zpd_ray.hashing import item_keys, streams, uniforms

if TYPE_CHECKING:
    from zpd_ray.config import Config

# Streams of random numbers that belong to the item alone, whatever the run's seed and stage.
DIFFICULTY, NOISE = 101, 102
RIGHT = "right"  # what stands for a right response where nothing says what one is
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def normals(keys: np.ndarray, stream: int) -> np.ndarray:
    """float64 (n,): a standard normal number per item, by inversion of the distribution function."""
    return ndtri(uniforms(streams(keys, stream)))


class SimulatedEngine:
    """Answers as a model of ability theta = engine.simulated.theta + gain * model.stage would."""

    reads_text = False
    has_weights = False

    @staticmethod
    def check(config: Config) -> None:
        """Everything can be simulated."""

    def __init__(self, config: Config, model: ModelRef, longest: int | None = None) -> None:
        self.seed = config.seed
        self.simulated = config.engine.simulated
        self.follow(model)

    def follow(self, model: ModelRef) -> None:
        """The ability of another stage."""
        self.stage = model.stage
        self.theta = self.simulated.theta + self.simulated.gain * model.stage

    def usage(self) -> dict[str, float]:
        """Nothing: no token is computed."""
        return {}

    def pulse(self) -> Pulse:
        """None: a part takes milliseconds."""
        return Pulse()

    def settings(self) -> dict[str, Any]:
        """The simulated ability."""
        return self.simulated.model_dump()

    def score(self, items: pa.Table) -> Scores:
        """NLL = exp(-0.5 + 0.5 (b - theta) + 0.25 e), e ~ N(0, 1) of the item, nats per token.

        Without a prompt NLL = exp(0.25 e): it knows the item's noise and not its difficulty.

        Every response token is the first choice exactly where ``generate`` with one rollout is right; else
        the share that is, is uniform. n_tokens is the column response_tokens, 1 of prompts alone.
        """
        keys = item_keys(items["item_id"])
        b, e = self._difficulty(items, keys, self.stage), normals(keys, NOISE)
        prompted = pc.fill_null(pc.list_value_length(items["messages"]), 0).to_numpy() > 0
        nll = np.exp(np.where(prompted, -0.5 + 0.5 * (b - self.theta), 0.0) + 0.25 * e).astype(np.float32)
        n_tokens = pc.fill_null(items["response_tokens"], 0).to_numpy().astype(np.int32)
        n_tokens = np.where(pc.is_null(items["response"]).to_numpy(), np.maximum(n_tokens, 1), n_tokens)
        right = self._right(keys, b - self._ahead(items), self.stage, rollout=0)
        share = uniforms(streams(keys, self.seed, self.stage, 0), draw=1)
        n_greedy = np.where(right, n_tokens, (share * n_tokens).astype(np.int32)).astype(np.int32)
        error: list[str | None] = [None] * len(keys)
        for i in np.flatnonzero(n_tokens <= 0):
            nll[i], error[i] = np.nan, "the response has no tokens"
        return Scores(nll, n_tokens, n_greedy, error)

    def generate(self, items: pa.Table, rollouts: int, stage: int) -> Completions:
        """The gold answer (the reference where there is none, ``RIGHT`` where there is neither) when right, a
        wrong one otherwise."""
        keys = item_keys(items["item_id"])
        b = self._difficulty(items, keys, stage) - self._ahead(items)
        right = np.stack([self._right(keys, b, stage, r) for r in range(rollouts)], axis=1)
        gold = pc.coalesce(items["answer"], items["response"], pa.scalar(RIGHT)).to_pylist()
        choices = items["choices"].to_pylist()
        texts = [
            [answer if r else wrong_answer(answer, options) for r in row]
            for answer, options, row in zip(gold, choices, right.tolist(), strict=True)
        ]
        return Completions(texts, [None] * len(texts))

    def _difficulty(self, items: pa.Table, keys: np.ndarray, stage: int) -> np.ndarray:
        b = normals(keys, DIFFICULTY)
        if stage == 0 or not self.simulated.drift:
            return b
        moved = [self.simulated.drift.get(group, 0.0) for group in items["group"].to_pylist()]
        return b + np.array(moved, dtype=np.float64)

    def _ahead(self, items: pa.Table) -> np.ndarray:
        """Logits by which the model is better at the group of each item than its theta says: (n,)."""
        if not self.simulated.groups:
            return np.zeros(items.num_rows)
        told = [self.simulated.groups.get(group, 0.0) for group in items["group"].to_pylist()]
        return np.array(told, dtype=np.float64)

    def _right(self, keys: np.ndarray, b: np.ndarray, stage: int, rollout: int) -> np.ndarray:
        return uniforms(streams(keys, self.seed, stage, rollout)) < expit(self.theta - b)


def wrong_answer(gold: str, choices: list[str] | None) -> str:
    """An answer that every grader parses where it parses the gold one, and takes for wrong."""
    if choices and gold in choices:
        return next((choice for choice in choices if choice != gold), f"not {gold}")
    letter = gold.strip().upper()
    if choices and len(letter) == 1 and letter in LETTERS[: len(choices)]:
        return LETTERS[(LETTERS.index(letter) + 1) % len(choices)]
    digits = list(re.finditer(r"\d", gold))
    if not digits:
        return f"not {gold}"
    at = digits[-1].start()
    return f"{gold[:at]}{(int(gold[at]) + 1) % 10}{gold[at + 1 :]}"
