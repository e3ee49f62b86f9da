"""A model shared out among workers trains as a whole one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, PreTrainedConfig, Qwen3MoeConfig

from tests import tiny
from tests.training.shares import (
    HOW,
    Weights,
    assert_close,
    assert_files_close,
    changed,
    every,
    gradients,
    reported,
    start,
    trained,
)
from tests.training.test_step import MakeConfig
from tests.training.worlds import in_world
from zpd_ray.config import Config
from zpd_ray.errors import ZpdError
from zpd_ray.training import loss as loss_module
from zpd_ray.training import sharding as sharding_module
from zpd_ray.training import step as step_module
from zpd_ray.training.sharding import blocks
from zpd_ray.training.state import trainable
from zpd_ray.training.step import Workers


@pytest.fixture(autouse=True)
def _head_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three positions, computed again in the backward pass: forked workers do the same."""
    monkeypatch.setattr(loss_module, "chunk_rows", lambda model, device: 3)


FEW = {
    ("lora", 4),
    ("lora, packed", 2),
    ("lora, recomputed", 2),
    ("full", 2),
    ("full, recomputed", 4),
    ("full, offloaded", 2),
}


@pytest.mark.parametrize(("how", "workers"), every(FEW))
def test_gradients_losses_and_weights_are_those_of_ddp_and_of_one_worker(
    make_config: MakeConfig, two_blocks: Path, how: str, workers: int
) -> None:
    section = {"learning_rate": 1e-2, "micro_batch_size": 1, "warmup": 0.0, "max_grad_norm": 0.5}
    config = make_config(
        path=two_blocks, workers=workers, batch_size=4, sharding="fsdp", **section | HOW[how]
    )
    whole = changed(config, sharding="none", offload=False)
    alone, found = trained(Workers(), whole), in_world(workers, trained, config)
    for other in (in_world(workers, trained, whole)[0], alone):
        for ours in found:
            assert ours.gradients.keys() == other.gradients.keys()
            for name, grad in other.gradients.items():
                assert np.abs(ours.gradients[name] - grad).max() < 1e-5 * np.abs(grad).max(), name
            assert_close(ours.weights, other.weights)
            np.testing.assert_allclose(ours.nlls, other.nlls, rtol=1e-5)
            for name, values in other.history.items():
                np.testing.assert_allclose(ours.history[name], values, rtol=1e-5)
    moved = [np.abs(weight - found[0].weights[name]).max() for name, weight in begun(whole).items()]
    assert min(moved) > 5e-3


def begun(config: Config) -> Weights:
    net = start(config, Workers()).net
    return {name: weight.detach().numpy() for name, weight in trainable(net).items()}


def test_tied_weights_stay_one(make_config: MakeConfig, tied_dir: Path) -> None:
    config = make_config(
        path=tied_dir, method="full", workers=2, batch_size=4, sharding="fsdp", learning_rate=1e-2, warmup=0.0
    )
    found = in_world(2, trained, config)[0]
    alone = trained(Workers(), changed(config, sharding="none"))
    assert_close(found.weights, alone.weights)
    assert "lm_head.weight" not in found.weights


SMALL: dict[str, Any] = {"vocab_size": 512, "hidden_size": 64}
FAMILIES: dict[str, PreTrainedConfig] = {
    "gpt2": GPT2Config(  # linear layers of its own, tied
        vocab_size=512, n_embd=64, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    ),
    "gemma2": Gemma2Config(  # caps its logits, and scales embeddings by a buffer
        **SMALL, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=32, final_logit_softcapping=1.0,
    ),
    "qwen3 moe": Qwen3MoeConfig(  # names weights in its files otherwise than in memory
        **SMALL, intermediate_size=64, moe_intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, num_experts=4, num_experts_per_tok=2,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "family",
    [name if name == "qwen3 moe" else pytest.param(name, marks=pytest.mark.nightly) for name in FAMILIES],
)
def test_other_families_train_and_are_saved_as_they_are_whole(
    make_config: MakeConfig, tmp_path: Path, family: str
) -> None:
    torch.manual_seed(0)
    base, ours, theirs = (tmp_path / name for name in ("base", "ours", "theirs"))
    AutoModelForCausalLM.from_config(FAMILIES[family]).save_pretrained(base)
    tiny.build_tokenizer().save_pretrained(base)
    config = make_config(path=base, method="full", workers=2, batch_size=4, sharding="fsdp", warmup=0.0)
    whole = changed(config, sharding="none")
    found, alone = in_world(2, trained, config)[0], trained(Workers(), whole)
    for name, grad in alone.gradients.items():
        assert np.abs(found.gradients[name] - grad).max() <= 1e-5 * np.abs(grad).max(), name
    assert_close(found.weights, alone.weights)
    in_world(2, reported, config, ours)
    in_world(2, reported, whole, theirs)
    assert_files_close(ours / "model.safetensors", theirs / "model.safetensors")
    assert (ours / "config.json").read_bytes() == (theirs / "config.json").read_bytes()


# --- types, as on GPUs ---


def test_a_frozen_base_keeps_its_bfloat16_beside_float32_adapters(
    make_config: MakeConfig, two_blocks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    AutoModelForCausalLM.from_pretrained(two_blocks, dtype=torch.bfloat16).save_pretrained(tmp_path)
    tiny.build_tokenizer().save_pretrained(tmp_path)
    load = AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda path, dtype, **how: load(path, dtype="auto", **how)
    )
    config = make_config(path=tmp_path, workers=2, batch_size=4, sharding="fsdp")
    ours, theirs = (in_world(2, types, each)[0] for each in (config, changed(config, sharding="none")))
    assert ours[1] == theirs[1] == {"base": {torch.bfloat16}, "adapter": {torch.float32}}
    for name, grad in theirs[0].items():
        assert np.abs(ours[0][name] - grad).max() < 1e-4 * np.abs(grad).max(), name


def types(workers: Workers, config: Config) -> tuple[Weights, dict[str, set[torch.dtype]]]:
    learner = start(config, workers)
    weights = learner.net.named_parameters()
    found: dict[str, set[torch.dtype]] = {"base": set(), "adapter": set()}
    for _, weight in weights:
        found["adapter" if weight.requires_grad else "base"].add(weight.dtype)
    return gradients(learner), found


def test_weights_that_are_all_trained_are_gathered_in_bfloat16_and_kept_in_float32(
    make_config: MakeConfig, two_blocks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Autocast does the same where the model is whole, but for sums of hidden states, kept in float32."""
    for module in (sharding_module, step_module):
        monkeypatch.setattr(module, "in_bf16", lambda config, device: True)
    config = make_config(path=two_blocks, method="full", workers=2, batch_size=4, sharding="fsdp")
    ours, theirs = (in_world(2, types, each)[0] for each in (config, changed(config, sharding="none")))
    assert ours[1]["adapter"] == {torch.float32}
    for name, grad in theirs[0].items():
        assert ours[0][name].dtype == np.float32
        apart = np.linalg.norm(ours[0][name] - grad) / np.linalg.norm(grad)
        assert 0 < apart < 0.05, name


class Nameless(nn.Module):
    """A model that does not say what its blocks are."""


def test_a_model_without_named_blocks_is_refused() -> None:
    with pytest.raises(ZpdError, match=r"Nameless does not name its blocks .*train.sharding = 'none'"):
        blocks(Nameless())
