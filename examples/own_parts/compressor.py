"""An engine: zlib as a language model (Deletang et al. 2023, arXiv 2309.10668)."""

import math
import zlib
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from zpd_ray.config import Config
from zpd_ray.engines import Completions, ModelRef, Pulse, Scores


def nats(prompt: str, text: str) -> float:
    """What the text costs after the prompt: the bytes that it adds to the compressed whole, in nats."""
    added = len(zlib.compress(f"{prompt} {text}".encode())) - len(zlib.compress(prompt.encode()))
    return math.log(256) * max(added, 1)


class Compressor:
    """Multiple choice by the option that costs least."""

    reads_text: ClassVar[bool] = False  # no tokenizer: words count as tokens
    has_weights: ClassVar[bool] = False  # nothing to train

    @staticmethod
    def check(config: Config) -> None:
        """Raise ZpdError here for what the config asks and the engine cannot do; load nothing."""

    def __init__(self, config: Config, model: ModelRef, longest: int | None = None) -> None:
        self.done = 0

    def follow(self, model: ModelRef) -> None:
        """Take the weights of another stage, where there are any."""

    def score(self, items: pa.Table) -> Scores:
        """NLL of each reference, nats per token; no first choices are counted (-1)."""
        n_tokens = np.array([max(len(text.split()), 1) for text in items["response"].to_pylist()], np.int32)
        costs = [nats(*pair) for pair in zip(_prompts(items), items["response"].to_pylist(), strict=True)]
        self.done += len(costs)
        nll = (np.array(costs) / n_tokens).astype(np.float32)
        return Scores(nll, n_tokens, np.full_like(n_tokens, -1), [None] * len(costs))

    def generate(self, items: pa.Table, rollouts: int, stage: int) -> Completions:
        """The same answer in every rollout: nothing is drawn."""
        asked = zip(_prompts(items), items["choices"].to_pylist(), strict=True)
        best = [min(options or [""], key=lambda option: nats(prompt, option)) for prompt, options in asked]
        self.done += len(best)
        return Completions([[text] * rollouts for text in best], [None] * len(best))

    def usage(self) -> dict[str, float]:
        """Amounts of work since the last call, by name."""
        return {}

    def pulse(self) -> Pulse:
        """Signs of life, asked while it computes: numbers that grow."""
        return Pulse(items=self.done, steps=self.done)

    def settings(self) -> dict[str, Any]:
        """What goes into the run's manifest."""
        return {"zlib": zlib.ZLIB_RUNTIME_VERSION}


def _prompts(items: pa.Table) -> list[str]:
    return [" ".join(turn["content"] for turn in turns) for turns in items["messages"].to_pylist()]
