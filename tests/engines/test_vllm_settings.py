"""What vLLM is started with: arithmetic that needs no vLLM."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig

from tests.engines.lora import make_adapter
from zpd_ray.config import Config
from zpd_ray.engines.transformers import TransformersEngine
from zpd_ray.engines.vllm import settings
from zpd_ray.engines.vllm.engine import VllmEngine
from zpd_ray.engines.vllm.settings import (
    BLOCK,
    CPU_KV_CACHE,
    CPU_LOGITS,
    GIB,
    GPU_LOGITS,
    LEAST_TOKENS,
    LOGIT_BYTES,
    Device,
    Shape,
    derive,
)
from zpd_ray.errors import ZpdError

CPU, H200 = Device(0, v2=False), Device(141 * GIB, v2=True)
SMALL = Shape(vocabulary=32_000, kv_bytes=4096)
MakeConfig = Callable[..., Config]


def test_shape_counts_keys_and_values_of_all_layers() -> None:
    grouped = LlamaConfig(
        vocab_size=1000, hidden_size=512, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=2
    )
    assert Shape.of(grouped, itemsize=2) == Shape(1000, 2 * 3 * 2 * 64 * 2)


@given(
    vocabulary=st.integers(300, 300_000),
    batch=st.integers(1, 100_000),
    v2=st.booleans(),
    gpu=st.booleans(),
)
def test_logits_of_a_step_stay_within_their_bound(vocabulary: int, batch: int, v2: bool, gpu: bool) -> None:
    config = make(batch_tokens=batch, gpus=float(gpu))
    device = Device(80 * GIB if gpu else 0, v2)
    arguments = derive(config, Shape(vocabulary, 4096), device, max_length=4096)
    tokens = arguments["max_num_batched_tokens"]
    assert tokens >= max(LEAST_TOKENS, config.engine.vllm.sequences)
    least = max(LEAST_TOKENS, config.engine.vllm.sequences)
    if not v2 and tokens > least:
        assert tokens * vocabulary * LOGIT_BYTES <= (GPU_LOGITS if gpu else CPU_LOGITS)
    if tokens > least:
        assert tokens <= batch


def make(batch_tokens: int = 8192, gpus: float = 0.0, **sections: Any) -> Config:
    values = {
        "output": "unused",
        "pool": {"path": "unused"},
        "model": {"path": "unused"},
        "engine": {"name": "vllm", "batch_tokens": batch_tokens},
        "cluster": {"gpus_per_actor": gpus},
        "select": {"budget": {"items": 1}},
    }
    return Config.model_validate(values | sections)


def test_a_long_prompt_at_a_large_vocabulary_is_taken_in_small_steps() -> None:
    arguments = derive(make(), Shape(128_000, 4096), CPU, max_length=4096)
    assert arguments["max_num_batched_tokens"] == CPU_LOGITS // (128_000 * LOGIT_BYTES)
    assert arguments["max_model_len"] == 4097


def test_gpu_memory_is_kept_for_logits_and_shared_by_fractions() -> None:
    whole = derive(make(gpus=1.0), SMALL, H200, max_length=4096)["gpu_memory_utilization"]
    half = derive(make(gpus=0.5), SMALL, H200, max_length=4096)["gpu_memory_utilization"]
    assert 0.85 < whole < 0.9
    assert half < whole / 2 + 1e-3
    older = derive(make(gpus=1.0), SMALL, Device(16 * GIB, v2=False), max_length=4096)
    assert older["gpu_memory_utilization"] <= 0.9 - older["max_num_batched_tokens"] * 32_000 * 10 / (16 * GIB)
    assert "kv_cache_memory_bytes" not in older


def test_a_model_over_several_gpus() -> None:
    assert derive(make(gpus=4.0), SMALL, H200, max_length=512)["tensor_parallel_size"] == 4
    assert derive(make(gpus=0.25), SMALL, H200, max_length=512)["tensor_parallel_size"] == 1


@given(max_length=st.integers(1, 100_000), kv_bytes=st.integers(64, 10**6))
def test_the_cache_of_a_cpu_holds_one_row_at_least_and_no_more_than_needed(
    max_length: int, kv_bytes: int
) -> None:
    cache = derive(make(), Shape(1000, kv_bytes), CPU, max_length)["kv_cache_memory_bytes"]
    row = (max_length + 1) * kv_bytes
    assert cache >= row + BLOCK * kv_bytes
    assert cache <= max(CPU_KV_CACHE, 2 * (row + 2 * BLOCK * kv_bytes))


def test_what_the_config_gives_comes_first() -> None:
    engine = {"name": "vllm", "vllm": {"batched_tokens": 777, "sequences": 5, "kv_cache_gib": 0.25}}
    arguments = derive(make(engine=engine), SMALL, CPU, max_length=512)
    assert arguments["max_num_batched_tokens"] == 777
    assert arguments["max_num_seqs"] == 5
    assert arguments["kv_cache_memory_bytes"] == GIB // 4
    engine["vllm"] = {"gpu_memory_share": 0.3}
    gpu = derive(make(gpus=1.0, engine=engine), SMALL, H200, max_length=512)
    assert gpu["gpu_memory_utilization"] == 0.3


def test_rollouts_share_prompts_and_do_not_chunk_them_on_the_cpu() -> None:
    measure = {"grader": "numeric", "rollouts": 4}
    sampled = derive(make(measure=measure), SMALL, CPU, max_length=3000)
    assert sampled["enable_prefix_caching"] is True
    assert sampled["enable_chunked_prefill"] is False
    assert sampled["max_num_batched_tokens"] >= sampled["max_model_len"]
    single = derive(make(), SMALL, CPU, max_length=3000)
    assert single["enable_prefix_caching"] is False
    assert "enable_chunked_prefill" not in single


@pytest.mark.parametrize(("rank", "prepared"), [(1, 8), (8, 8), (9, 16), (200, 256), (512, 512)])
def test_vllm_is_prepared_for_the_rank_of_the_adapters(rank: int, prepared: int) -> None:
    lora = {"rank": rank, "targets": ["q_proj"]}
    arguments = derive(make(train={"lora": lora}), SMALL, CPU, max_length=512)
    assert arguments["max_lora_rank"] == prepared
    assert arguments["lora_target_modules"] == ["q_proj"]
    assert "enable_lora" not in derive(make(train={"method": "full"}), SMALL, CPU, max_length=512)


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"cluster": {"gpus_per_actor": 1.5}}, "gpus_per_actor = 1.5; vLLM splits a model over whole GPUs"),
        (
            {"train": {"method": "lora", "lora": {"rank": 1000}}},
            "rank = 1000; vLLM takes adapters of rank 512 at most",
        ),
        ({"measure": {"rollouts": 2, "temperature": 3}}, "temperature = 3; vLLM takes 0.01 to 2"),
        ({"measure": {"rollouts": 2, "temperature": 0.001}}, "temperature = 0.001; vLLM takes 0.01 to 2"),
    ],
)
def test_what_vllm_cannot_do_is_refused_with_vllm_alone(
    sections: dict[str, Any],
    told: str,
    make_config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settings, "find_spec", lambda name: object())
    config = make_config(**sections)
    TransformersEngine.check(config)
    with pytest.raises(ZpdError, match=told):
        VllmEngine.check(config)


def test_adapters_of_another_kind_than_vllm_was_started_for_are_refused(
    model_dir: Path, tmp_path: Path
) -> None:
    """The largest rank is that of ``derive``: 8 is what vLLM prepares for rank 5."""
    adapter = make_adapter(model_dir, tmp_path, seed=1)
    config = make(train={"lora": {"rank": 5}})
    assert derive(config, SMALL, CPU, max_length=128)["max_lora_rank"] == 8
    settings.check_served(config, adapter)
    file = adapter / "adapter_config.json"
    plain = json.loads(file.read_text())
    for change, told in (
        ({"r": 8}, ""),
        (
            {"r": 9},
            "is of rank 9, and vLLM is prepared for 8 by train.lora.rank = 5; set",
        ),
        ({"rank_pattern": {"q_proj": 16}}, "is of rank 16"),
        ({"use_dora": True}, "has use_dora, which vLLM does not serve"),
    ):
        file.write_text(json.dumps(plain | change))
        if told:
            with pytest.raises(ZpdError, match=told):
                settings.check_served(config, adapter)
        else:
            settings.check_served(config, adapter)
