"""The engine on Hugging Face transformers: CPU and GPU, LoRA adapters by path."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from zpd_ray.engines import tokens
from zpd_ray.engines.adapters import check_adapter
from zpd_ray.engines.attention import Shown, attention_to, default_layer, show
from zpd_ray.engines.base import Completions, ModelRef, Pulse, Scores
from zpd_ray.engines.batching import in_halves, plan
from zpd_ray.engines.decoding import Pick, complete, pick_first, picker
from zpd_ray.engines.encoding import Encoder, row_means, to_scores
from zpd_ray.engines.logprobs import find_finish, score_tokens
from zpd_ray.engines.usage import Meter
from zpd_ray.errors import ZpdError
from zpd_ray.hashing import item_keys, streams

if TYPE_CHECKING:
    from zpd_ray.config import Config

# A decoding step feeds one token a row, so a batch of generation may hold more rows than one of scoring.
GENERATION_FACTOR = 4
# A core is no faster on larger passes, whatever fits into memory (measured: 5 % slower at 8192 tokens).
CPU_TOKENS = 2048


class TransformersEngine:
    """A causal language model, loaded; it sets the number of torch threads of its process.

    Threads are a function of cluster.cpus_per_actor, not of the machine: sums then round alike for any number
    of actors. Weights are read from safetensors only and no code that comes with a model is run.
    """

    reads_text = True
    has_weights = True

    @staticmethod
    def check(config: Config) -> None:
        """Whatever the config allows is taken."""

    def __init__(self, config: Config, model: ModelRef, longest: int | None = None) -> None:
        """Raises ZpdError when tokenizer, weights or adapter are missing, or the GPU that was asked for."""
        torch.set_num_threads(max(1, int(config.cluster.cpus_per_actor)))
        self.config = config
        self.device = _device(config)
        self.encoder = Encoder(config, model.base)
        self.meter = Meter()
        self.computing = Lock()
        # On a CPU both want the same core, and two threads of Python slow each other down.
        self.encoding = self.computing if self.device.type == "cpu" else Lock()
        self.follow(model)

    def follow(self, model: ModelRef) -> None:
        """Load the weights of another stage; errors as at the start."""
        with self.computing:
            self._release()  # never two models in memory
            self.model = _load(model, self.config.model.dtype, self.device)
            self.finish = find_finish(self.model)

    def _release(self) -> None:
        if hasattr(self, "model"):
            del self.model, self.finish
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def score(self, items: pa.Table) -> Scores:
        """NLL and greedy matches of each reference; one decoder pass, logits at response positions only.

        A row that is too long, has no response tokens, is refused by the chat template, or has a non-finite
        NLL gets an error. Raises ZpdError when all of several rows are non-finite: the model is broken.
        """
        with self.encoding:
            rows = self.encoder.rows(items)
        nll, n_greedy = np.full(len(rows.ids), np.nan, dtype=np.float32), np.zeros_like(rows.response)

        def compute(part: np.ndarray) -> None:
            scores = score_tokens(self.model, self.finish, [rows.ids[i] for i in part], rows.prompt[part])
            nll[part], n_greedy[part] = row_means(scores, rows.response[part])

        lengths = rows.prompt + rows.response
        budget = self.config.engine.batch_tokens
        budget = min(budget, CPU_TOKENS) if self.device.type == "cpu" else budget
        with self.computing, self.meter.timing("prefill"):
            self._run(items, lengths, rows.error, budget, compute)
        good = np.array([why is None for why in rows.error], dtype=bool)
        self.meter.count(prefill_tokens=int(lengths[good].sum()))
        return to_scores(rows, nll, n_greedy, str(self.model.dtype))

    def generate(self, items: pa.Table, rollouts: int, stage: int) -> Completions:
        """``rollouts`` completions of each prompt, special tokens left out; greedy when one, else sampled.

        A prompt that the template refuses, or that leaves no room for a new token, gets none and the reason.
        """
        with self.encoding:
            prompts = self.encoder.prompts(items)
        keys = item_keys(items["item_id"])
        texts: list[list[str]] = [[] for _ in prompts.ids]

        def compute(part: np.ndarray) -> None:
            pick = self._pick(keys[part], rollouts, stage)
            ids = [prompts.ids[i] for i in part]
            done = complete(
                self.model, ids, rollouts, prompts.limits[part], self.encoder.stops, pick, self.meter.beat
            )
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
        ``default_layer``. And per prompt why it could not be measured, or None: its row is NaN.
        """
        with self.encoding:
            texts, error = tokens.prompt_texts(
                self.encoder.tokenizer, items["messages"], self.config.model.separator
            )
            rows = show(self.encoder.tokenizer, texts, shown)
        found = np.full((len(rows), len(shown[0]) if shown else 0), np.nan)
        error = [why or (row if isinstance(row, str) else None) for why, row in zip(error, rows, strict=True)]
        at = default_layer(self.model) if layer is None else layer

        def compute(part: np.ndarray) -> None:
            found[part] = attention_to(
                self.model, at, [row for i in part if isinstance(row := rows[i], Shown)]
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
        return {
            "device": self.device.type,
            "dtype": str(self.model.dtype),
            "threads": torch.get_num_threads(),
            "max_length": self.encoder.max_length,
        }

    def _pick(self, keys: np.ndarray, rollouts: int, stage: int) -> Pick:
        if rollouts == 1:
            return pick_first
        each = [streams(keys, self.config.seed, stage, rollout) for rollout in range(rollouts)]
        return picker(np.stack(each, axis=1).ravel(), self.config.measure.temperature)

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


def _device(config: Config) -> torch.device:
    if config.cluster.gpus_per_actor == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ZpdError(
            f"cluster.gpus_per_actor = {config.cluster.gpus_per_actor}, and torch sees no GPU here; "
            "set it to 0, or install a torch built for CUDA"
        )
    return torch.device("cuda")


def _load(model: ModelRef, dtype: str, device: torch.device) -> PreTrainedModel:
    kind: Any = "float32" if dtype == "auto" and device.type == "cpu" else dtype
    disable_progress_bar()  # one per actor would bury the run's own
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            model.base, dtype=kind, use_safetensors=True, trust_remote_code=False
        )
    except Exception as error:  # the hub, json, safetensors and model classes each raise their own
        raise ZpdError(
            f"cannot load a causal language model from {model.base!r} ({tokens.first_line(error)}); "
            "expected config.json and *.safetensors there, or the id of a model to download"
        ) from error
    if model.adapter is not None:
        loaded = _with_adapter(loaded, Path(model.adapter))
    return loaded.to(device).eval()


def _with_adapter(base: PreTrainedModel, adapter: Path) -> Any:
    """The base with LoRA layers in place, not merged into its weights."""
    check_adapter(adapter)
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(base, str(adapter), is_trainable=False).get_base_model()
    except Exception as error:  # another base's shapes, no such modules, a truncated file
        raise ZpdError(
            f"adapter {adapter} does not fit {base.name_or_path} ({tokens.first_line(error)}); "
            "expected one that was trained on this base model"
        ) from error
