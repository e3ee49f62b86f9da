"""What vLLM is started with: memory and batch sizes from the model, the lengths and the device.

Log-probabilities of a prompt are computed from logits of a whole step at once, which vLLM's own memory
profiling does not count (a 4,000-token prompt at a vocabulary of 128,000 took 3.95 GB; known reports end in
out-of-memory). So the tokens of a step are bounded by what their logits may take, and on a GPU that much is
kept out of the share that vLLM fills with its KV cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zpd_ray.config import Config
from zpd_ray.engines.adapters import changed_modules, check_adapter
from zpd_ray.errors import ZpdError

MIB, GIB = 2**20, 2**30
# float32 logits, their log-softmax and a mask for the ranks.
LOGIT_BYTES = 10
CPU_LOGITS, GPU_LOGITS = 512 * MIB, 2 * GIB  # what the logits of a step may take
# Version 2 of vLLM's runner makes prompt logits so many rows at a time, whatever the step holds.
V2_LOGIT_ROWS = 1024
CPU_KV_CACHE = 512 * MIB
CPU_TOKENS = 2048  # a core is no faster on larger steps
GPU_SHARE = 0.9  # vLLM's own default
LEAST_TOKENS = 128  # of a step, whatever the vocabulary
BLOCK = 128  # tokens of a block of the CPU's KV cache
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the largest ranks that vLLM can be prepared for
UNSERVED = ("use_dora", "lora_bias", "use_qalora", "use_bdlora", "layer_replication")  # of peft's LoRA
TEMPERATURES = (0.01, 2.0)  # below, vLLM samples at 0.01 without a word


def check_config(config: Config) -> None:
    """Raises ZpdError when vLLM is not installed, or cannot do what the config asks; loads nothing."""
    if find_spec("vllm") is None:
        raise ZpdError(
            "engine.name = 'vllm', and no vllm is installed here; pip install 'zpd-ray[vllm]' on every node, "
            "or set engine.name = 'transformers'"
        )
    gpus, rank, temperature = (
        config.cluster.gpus_per_actor,
        config.train.lora.rank,
        config.measure.temperature,
    )
    if gpus > 1 and gpus != int(gpus):
        raise ZpdError(
            f"cluster.gpus_per_actor = {gpus:g}; vLLM splits a model over whole GPUs: expected an "
            "integer, or a fraction below 1 for several actors on one GPU"
        )
    if config.train.method == "lora" and rank > RANKS[-1]:
        raise ZpdError(
            f"train.lora.rank = {rank}; vLLM takes adapters of rank {RANKS[-1]} at most: lower it, "
            "or set engine.name = 'transformers'"
        )
    least, most = TEMPERATURES
    if config.measure.rollouts > 1 and not least <= temperature <= most:
        raise ZpdError(
            f"measure.temperature = {temperature:g}; vLLM takes {least:g} to {most:g}: change it, or set "
            "engine.name = 'transformers'"
        )


def check_served(config: Config, directory: Path) -> None:
    """Raises ZpdError for an adapter that vLLM, started for ``train.lora``, refuses or serves in part."""
    adapter, lora = check_adapter(directory), config.train.lora
    served = set(lora.targets) - {"lm_head"}
    if dropped := sorted(changed_modules(directory) - served):
        raise ZpdError(
            f"adapter {directory} changes {', '.join(dropped)}, which vLLM would drop without a word: it "
            f"was started for train.lora.targets = {sorted(served)}; name all modules there that are "
            "trained, as LoRA on linear layers of the decoder (never lm_head, no modules_to_save)"
        )
    rank = max([adapter.get("r", 0), *(adapter.get("rank_pattern") or {}).values()])
    if rank > _largest_rank(config):
        raise ZpdError(
            f"adapter {directory} is of rank {rank}, and vLLM is prepared for {_largest_rank(config)} by "
            f"train.lora.rank = {lora.rank}; set train.lora.rank = {rank}, or engine.name = 'transformers'"
        )
    if unknown := [name for name in UNSERVED if adapter.get(name)]:
        raise ZpdError(
            f"adapter {directory} has {', '.join(unknown)}, which vLLM does not serve; expected plain LoRA "
            "weights: train it without, or set engine.name = 'transformers'"
        )


def _largest_rank(config: Config) -> int:
    return next(rank for rank in RANKS if rank >= config.train.lora.rank)


@dataclass(frozen=True)
class Shape:
    """What memory depends on. kv_bytes: of the cache for one token, over all layers."""

    vocabulary: int
    kv_bytes: int

    @staticmethod
    def of(text_config: Any, itemsize: int) -> Shape:
        """From a transformers config; ``itemsize``: bytes of one number in the cache."""
        heads = text_config.num_attention_heads
        kv_heads = getattr(text_config, "num_key_value_heads", None) or heads
        width = getattr(text_config, "head_dim", None) or text_config.hidden_size // heads
        kv_bytes = 2 * text_config.num_hidden_layers * kv_heads * width * itemsize
        return Shape(int(text_config.vocab_size), int(kv_bytes))


@dataclass(frozen=True)
class Device:
    """Where the engine runs. memory: bytes of one GPU, 0 on the CPU; v2: version 2 of vLLM's runner."""

    memory: int
    v2: bool

    @property
    def is_cpu(self) -> bool:
        """Whether there is no GPU."""
        return self.memory == 0


def derive(config: Config, shape: Shape, device: Device, max_length: int) -> dict[str, Any]:
    """Arguments of ``vllm.LLM`` that memory and speed depend on; the config's own values come first.

    max_length: tokens of the longest sequence. Several rollouts on the CPU are the one case in which the
    logits of a step are not bounded by CPU_LOGITS but by the longest row.
    """
    given, sampled = config.engine.vllm, config.measure.rollouts > 1
    tokens = given.batched_tokens or _step_tokens(config, shape, device)
    arguments: dict[str, Any] = {
        "max_model_len": max_length + 1,  # vLLM wants room for one new token after a whole row
        "max_num_seqs": given.sequences,
        # Rollouts of a prompt share its prefill through the cache; scoring never reads it.
        "enable_prefix_caching": sampled,
    }
    if device.is_cpu:
        # Seeds of requests kill vLLM's CPU runner when it takes a prompt in chunks.
        if sampled:
            arguments["enable_chunked_prefill"] = False
            tokens = max(tokens, max_length + 1)
        arguments["enforce_eager"] = True  # compiling costs more than it gains there
        arguments["kv_cache_memory_bytes"] = _cpu_cache(config, shape, max_length)
    else:
        arguments["gpu_memory_utilization"] = given.gpu_memory_share or _share(config, shape, device, tokens)
        arguments["tensor_parallel_size"] = max(1, int(config.cluster.gpus_per_actor))
    if config.train.method == "lora":
        arguments["enable_lora"] = True
        arguments["max_lora_rank"] = _largest_rank(config)
        # Without the head: with it vLLM's CPU engine crashes, and on a GPU it drops the head's part.
        arguments["lora_target_modules"] = config.train.lora.targets
    return arguments | {"max_num_batched_tokens": tokens}


def _step_tokens(config: Config, shape: Shape, device: Device) -> int:
    most = min(config.engine.batch_tokens, CPU_TOKENS) if device.is_cpu else config.engine.batch_tokens
    if not device.v2:
        most = min(most, (CPU_LOGITS if device.is_cpu else GPU_LOGITS) // (shape.vocabulary * LOGIT_BYTES))
    return max(most, LEAST_TOKENS, config.engine.vllm.sequences)


def _share(config: Config, shape: Shape, device: Device, tokens: int) -> float:
    """Of a GPU's memory, for weights, activations and KV cache."""
    rows = min(tokens, V2_LOGIT_ROWS) if device.v2 else tokens
    logits = rows * shape.vocabulary * LOGIT_BYTES / device.memory
    share = GPU_SHARE * min(1.0, config.cluster.gpus_per_actor) - logits
    return math.floor(1000 * max(share, 0.05)) / 1000


def _cpu_cache(config: Config, shape: Shape, max_length: int) -> int:
    """Bytes of KV cache in main memory: for all sequences of a step up to a bound, for one at least.

    Blocks are whole, and vLLM keeps one to itself.
    """
    if config.engine.vllm.kv_cache_gib is not None:
        return int(config.engine.vllm.kv_cache_gib * GIB)
    one = (math.ceil((max_length + 1) / BLOCK) + 1) * BLOCK * shape.kv_bytes
    return max(2 * one, min(CPU_KV_CACHE, config.engine.vllm.sequences * one))
