"""The engine on Hugging Face transformers: CPU and GPU, LoRA adapters by path."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from zpd_ray.engines import tokens
from zpd_ray.engines.base import Completions, ModelRef, Pulse, Scores
from zpd_ray.engines.batching import in_halves, plan
from zpd_ray.engines.demonstrations import Shown, show
from zpd_ray.engines.encoding import Encoder, to_scores
from zpd_ray.engines.usage import Meter
from zpd_ray.hashing import item_keys, streams

if TYPE_CHECKING:
    from zpd_ray.config import Config

# A decoding step feeds one token a row, so a batch of generation may hold more rows than one of scoring.
GENERATION_FACTOR = 4
# A core is no faster on larger passes, whatever fits into memory (measured: 5 % slower at 8192 tokens).
CPU_TOKENS = 2048


class TransformersEngine:
    """Batches of texts through a causal language model; torch is imported when one is loaded."""

    reads_text = True
    has_weights = True

    @staticmethod
    def check(config: Config) -> None:
        """Whatever the config allows is taken."""

    def __init__(self, config: Config, model: ModelRef, longest: int | None = None) -> None:
        """Raises ZpdError when tokenizer, weights or adapter are missing, or the GPU that was asked for."""
        from zpd_ray.engines.network import Network

        self.config = config
        self.encoder = Encoder(config, model.base)
        self.network = Network(config, model)
        self.meter = Meter()
        self.computing = Lock()
        # On a CPU both want the same core, and two threads of Python slow each other down.
        self.on_cpu = self.network.device.type == "cpu"
        self.encoding = self.computing if self.on_cpu else Lock()

    def follow(self, model: ModelRef) -> None:
        """Load the weights of another stage; errors as at the start."""
        with self.computing:
            self.network.load(model)

    def score(self, items: pa.Table) -> Scores:
        """NLL and greedy matches of each reference; one decoder pass, logits at response positions only.

        A row that is too long, has no response tokens, is refused by the chat template, or has a non-finite
        NLL gets an error. Raises ZpdError when all of several rows are non-finite: the model is broken.
        """
        with self.encoding:
            rows = self.encoder.rows(items)
        nll, n_greedy = np.full(len(rows.ids), np.nan, dtype=np.float32), np.zeros_like(rows.response)

        def compute(part: np.ndarray) -> None:
            scores = self.network.score([rows.ids[i] for i in part], rows.prompt[part])
            nll[part], n_greedy[part] = rows.means(scores, part)

        lengths = rows.prompt + rows.response
        budget = self.config.engine.batch_tokens
        budget = min(budget, CPU_TOKENS) if self.on_cpu else budget
        with self.computing, self.meter.timing("prefill"):
            self._run(items, lengths, rows.error, budget, compute)
        good = np.array([why is None for why in rows.error], dtype=bool)
        self.meter.count(prefill_tokens=int(lengths[good].sum()))
        return to_scores(rows, nll, n_greedy, self.network.settings()["dtype"])

    def generate(self, items: pa.Table, rollouts: int, stage: int) -> Completions:
        """``rollouts`` completions of each prompt, special tokens left out; greedy when one, else sampled.

        A prompt that the template refuses, or that leaves no room for a new token, gets none and the reason.
        """
        with self.encoding:
            prompts = self.encoder.prompts(items)
        keys = item_keys(items["item_id"])
        texts: list[list[str]] = [[] for _ in prompts.ids]

        def compute(part: np.ndarray) -> None:
            ids, limits, draws = (
                [prompts.ids[i] for i in part],
                prompts.limits[part],
                self._draws(keys[part], rollouts, stage),
            )
            done = self.network.complete(ids, draws, limits, self.encoder.stops, self.meter.beat)
            self.meter.count(decode_tokens=sum(map(len, done)))
            said = self.encoder.texts(done)
            for at, i in enumerate(part):
                texts[i] = said[at * rollouts : (at + 1) * rollouts]

        lengths = np.array([len(row) for row in prompts.ids], dtype=np.int64)
        lengths += self.config.measure.max_new_tokens
        budget = GENERATION_FACTOR * self.config.engine.batch_tokens // rollouts
        with self.computing, self.meter.timing("decode"):
            self._run(items, lengths, prompts.error, budget, compute)
        return Completions(texts, prompts.error)

    def attention(
        self, items: pa.Table, shown: list[list[list[str]]], layer: int | None
    ) -> tuple[np.ndarray, list[str | None]]:
        """How much the last turn of each prompt attends to each of its k demonstrations: float64 (n, k).

        shown: per prompt its demonstrations, each as the texts of its turns. layer: counted from 0; None:
        ``attention.default_layer``. And per prompt why it could not be measured, or None: its row is NaN.
        """
        with self.encoding:
            texts, error = tokens.prompt_texts(
                self.encoder.tokenizer, items["messages"], self.config.model.separator, items["tools"]
            )
            rows = show(self.encoder.tokenizer, texts, shown)
        found = np.full((len(rows), len(shown[0]) if shown else 0), np.nan)
        error = [why or (row if isinstance(row, str) else None) for why, row in zip(error, rows, strict=True)]

        def compute(part: np.ndarray) -> None:
            found[part] = self.network.attention(
                layer, [row for i in part if isinstance(row := rows[i], Shown)]
            )

        lengths = np.array([len(row.ids) if isinstance(row, Shown) else 0 for row in rows], dtype=np.int64)
        with self.computing, self.meter.timing("prefill"):
            self._run(items, lengths, error, self.config.engine.batch_tokens, compute)
        self.meter.count(prefill_tokens=int(lengths.sum()))
        return found, error

    def usage(self) -> dict[str, float]:
        """Tokens and seconds of prefill and decode since the last call."""
        return self.meter.take()

    def pulse(self) -> Pulse:
        """A step is a batch that was scored, or a token of each completion under way."""
        return self.meter.pulse

    def settings(self) -> dict[str, Any]:
        """Device, type and threads."""
        return {**self.network.settings(), "max_length": self.encoder.max_length}

    def _draws(self, keys: np.ndarray, rollouts: int, stage: int) -> np.ndarray:
        """uint64 (n, rollouts): the streams of random numbers of each completion."""
        seed = self.config.seed
        return np.stack([streams(keys, seed, stage, rollout) for rollout in range(rollouts)], axis=1)

    def _run(
        self,
        items: pa.Table,
        lengths: np.ndarray,
        error: list[str | None],
        budget: int,
        compute: Callable[[np.ndarray], None],
    ) -> None:
        """Compute the rows without an error, batch by batch; what runs out of memory alone gets one."""
        good = np.array([i for i, why in enumerate(error) if why is None], dtype=np.int64)
        names = items["item_id"].to_numpy()[good]

        def fail(row: int) -> None:
            error[row] = f"out of GPU memory at {lengths[row]} tokens"

        for batch in plan(lengths[good], names, budget):
            self.meter.begin(names[batch[0]])
            in_halves(good[batch], compute, fail)
            self.meter.beat(items=len(batch))
