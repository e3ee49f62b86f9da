"""The engine on Hugging Face transformers: CPU and GPU, LoRA adapters by path."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from zpd_ray.engines import ModelRef, Scores, tokens
from zpd_ray.engines.batching import in_halves, plan
from zpd_ray.engines.randomness import item_keys, streams
from zpd_ray.engines.sampling import Pick, complete, pick_first, picker
from zpd_ray.engines.scoring import find_finish, row_means, score_tokens, vocabulary
from zpd_ray.errors import ZpdError

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

    def __init__(self, config: Config, model: ModelRef) -> None:
        """Raises ZpdError when tokenizer, weights or adapter are missing, or the GPU that was asked for."""
        torch.set_num_threads(max(1, int(config.cluster.cpus_per_actor)))
        self.config = config
        self.device = _device(config)
        self.tokenizer = tokens.load_tokenizer(model.base)
        self.max_length = tokens.max_length(
            config.model.model_copy(update={"path": model.base}), self.tokenizer
        )
        self.model = _load(model, config.model.dtype, self.device)
        self.vocabulary = vocabulary(self.model)
        self.finish = find_finish(self.model)
        self.stops = tokens.stop_ids(self.tokenizer)

    def score(self, items: pa.Table) -> Scores:
        """NLL and greedy matches of each reference; one decoder pass, logits at response positions only.

        A row that is too long, has no response tokens, is refused by the chat template, or has a non-finite
        NLL gets an error. Raises ZpdError when all of several rows are non-finite: the model is broken.
        """
        encoded = tokens.encode(
            self.tokenizer, items["messages"], items["response"], self.config.model.separator
        )
        rows = [p + r for p, r in zip(encoded.prompt_ids, encoded.response_ids, strict=True)]
        error = [why or self._misfit(row) for why, row in zip(encoded.error, rows, strict=True)]
        n_tokens = np.array([len(r) for r in encoded.response_ids], dtype=np.int32)
        nll, n_greedy = np.full(len(rows), np.nan, dtype=np.float32), np.zeros(len(rows), dtype=np.int32)

        def compute(part: np.ndarray) -> None:
            prompts = [len(encoded.prompt_ids[i]) for i in part]
            scores = score_tokens(self.model, self.finish, [rows[i] for i in part], prompts)
            nll[part], n_greedy[part] = row_means(scores, n_tokens[part])

        budget = self.config.engine.batch_tokens
        budget = min(budget, CPU_TOKENS) if self.device.type == "cpu" else budget
        self._run(items, [len(row) for row in rows], error, budget, compute)
        self._refuse_non_finite(nll, error)
        failed = np.array([why is not None for why in error], dtype=bool)
        nll[failed], n_tokens[failed], n_greedy[failed] = np.nan, 0, 0
        return Scores(nll, n_tokens, n_greedy, error)

    def generate(self, items: pa.Table, rollouts: int, stage: int) -> list[list[str]]:
        """``rollouts`` completions of each prompt, special tokens left out; greedy when one, else sampled.

        A prompt that the template refuses, or that leaves no room for a new token, gets an empty list.
        """
        prompt_ids, error = tokens.encode_prompts(
            self.tokenizer, items["messages"], self.config.model.separator
        )
        most = self.config.measure.max_new_tokens
        length = np.array([len(ids) for ids in prompt_ids], dtype=np.int64)
        limits = np.minimum(most, self.max_length - length)
        error = [
            why or (None if ids and room > 0 else "no room") or self._foreign(ids)
            for why, ids, room in zip(error, prompt_ids, limits, strict=True)
        ]
        keys = item_keys(items["item_id"])
        completions: list[list[str]] = [[] for _ in prompt_ids]

        def compute(part: np.ndarray) -> None:
            pick = self._pick(keys[part], rollouts, stage)
            ids = complete(
                self.model, [prompt_ids[i] for i in part], rollouts, limits[part], self.stops, pick
            )
            texts = self.tokenizer.batch_decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            for at, i in enumerate(part):
                completions[i] = texts[at * rollouts : (at + 1) * rollouts]

        budget = GENERATION_FACTOR * self.config.engine.batch_tokens // rollouts
        self._run(items, (length + most).tolist(), error, budget, compute)
        return completions

    def _pick(self, keys: np.ndarray, rollouts: int, stage: int) -> Pick:
        if rollouts == 1:
            return pick_first
        each = [streams(keys, self.config.seed, stage, rollout) for rollout in range(rollouts)]
        return picker(np.stack(each, axis=1).ravel(), self.config.measure.temperature)

    def _run(
        self,
        items: pa.Table,
        lengths: list[int],
        error: list[str | None],
        budget: int,
        compute: Callable[[np.ndarray], None],
    ) -> None:
        """Compute the rows without an error, batch by batch; what runs out of memory alone gets one."""
        good = np.array([i for i, why in enumerate(error) if why is None], dtype=np.int64)
        names = items["item_id"].to_numpy()[good]

        def fail(row: int) -> None:
            error[row] = f"out of GPU memory at {lengths[row]} tokens"

        for batch in plan(np.asarray(lengths)[good], names, budget):
            in_halves(good[batch], compute, fail)

    def _misfit(self, row: list[int]) -> str | None:
        if len(row) > self.max_length:
            return f"{len(row)} tokens of prompt and response; the model takes {self.max_length}"
        return self._foreign(row)

    def _foreign(self, row: list[int]) -> str | None:
        if max(row, default=0) >= self.vocabulary:
            return f"token id {max(row)} is outside the model's {self.vocabulary} embeddings"
        return None

    def _refuse_non_finite(self, nll: np.ndarray, error: list[str | None]) -> None:
        scored = [i for i, why in enumerate(error) if why is None]
        bad = [i for i in scored if not np.isfinite(nll[i])]
        if len(bad) == len(scored) > 1:
            raise ZpdError(
                f"all {len(bad)} NLLs are non-finite in {self.model.dtype}; the weights or the adapter are "
                "broken, or float16 overflows: check them, or set model.dtype = 'float32'"
            )
        for i in bad:
            error[i] = "non-finite NLL"


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
    names = sorted(entry.name for entry in adapter.iterdir()) if adapter.is_dir() else []
    missing = {"adapter_config.json", "adapter_model.safetensors"} - set(names)
    if missing:
        raise ZpdError(
            f"no LoRA adapter in {adapter}: {' and '.join(sorted(missing))} missing, found "
            f"{', '.join(names) or 'nothing'}; expected what peft's save_pretrained writes"
        )
    kind = json.loads((adapter / "adapter_config.json").read_text()).get("peft_type")
    if kind != "LORA":
        raise ZpdError(f"adapter {adapter} is of type {kind}; expected LORA")
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(base, str(adapter), is_trainable=False).get_base_model()
    except Exception as error:  # another base's shapes, no such modules, a truncated file
        raise ZpdError(
            f"adapter {adapter} does not fit {base.name_or_path} ({tokens.first_line(error)}); "
            "expected one that was trained on this base model"
        ) from error
