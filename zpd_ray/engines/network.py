"""A causal language model of Hugging Face transformers, loaded: on CPU and GPU, LoRA adapters by path."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from zpd_ray.engines.adapters import check_adapter
from zpd_ray.engines.attention import attention_to, default_layer
from zpd_ray.engines.base import ModelRef
from zpd_ray.engines.decoding import complete, pick_first, picker
from zpd_ray.engines.demonstrations import Shown
from zpd_ray.engines.encoding import TokenScores
from zpd_ray.engines.logprobs import find_finish, score_tokens
from zpd_ray.engines.tokens import Ids
from zpd_ray.errors import ZpdError, first_line

if TYPE_CHECKING:
    from zpd_ray.config import Config


class Network:
    """The weights of one stage at a time; it sets the number of torch threads of its process.

    Threads are a function of cluster.cpus_per_actor, not of the machine: sums then round alike for any number
    of actors. Weights are read from safetensors only and no code that comes with a model is run.
    """

    def __init__(self, config: Config, model: ModelRef) -> None:
        """Raises ZpdError when weights or adapter are missing, or the GPU that was asked for."""
        torch.set_num_threads(max(1, int(config.cluster.cpus_per_actor)))
        self.dtype, self.temperature = config.model.dtype, config.measure.temperature
        self.device = _device(config)
        self.load(model)

    def load(self, model: ModelRef) -> None:
        """Take the weights of another stage; errors as at the start."""
        self._release()  # never two models in memory
        self.model = _load(model, self.dtype, self.device)
        self.finish = find_finish(self.model)

    def _release(self) -> None:
        if hasattr(self, "model"):
            del self.model, self.finish
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def score(self, ids: Sequence[Ids], prompt: Sequence[int]) -> TokenScores:
        """As ``logprobs.score_tokens``."""
        return score_tokens(self.model, self.finish, ids, prompt)

    def complete(
        self,
        prompts: Sequence[Ids],
        streams: np.ndarray,
        limits: np.ndarray,
        stops: set[int],
        beat: Callable[[], None],
    ) -> list[Ids]:
        """As ``decoding.complete``: greedy where each prompt is completed once, else sampled.

        streams: uint64 (prompts, rollouts), the random numbers of each completion.
        """
        rollouts = streams.shape[1]
        pick = pick_first if rollouts == 1 else picker(streams.ravel(), self.temperature)
        return complete(self.model, prompts, rollouts, limits, stops, pick, beat)

    def attention(self, layer: int | None, rows: Sequence[Shown]) -> np.ndarray:
        """As ``attention.attention_to``; layer None: the default."""
        return attention_to(self.model, default_layer(self.model) if layer is None else layer, rows)

    def settings(self) -> dict[str, Any]:
        """Device, type and threads."""
        return {
            "device": self.device.type,
            "dtype": str(self.model.dtype),
            "threads": torch.get_num_threads(),
        }


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
            f"cannot load a causal language model from {model.base!r} ({first_line(error)}); "
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
            f"adapter {adapter} does not fit {base.name_or_path} ({first_line(error)}); "
            "expected one that was trained on this base model"
        ) from error
