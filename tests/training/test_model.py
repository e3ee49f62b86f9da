"""The model of a train worker: what trains, what is saved, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from zpd_ray.config import Config
from zpd_ray.engines import ModelRef
from zpd_ray.engines.model_files import load_tokenizer
from zpd_ray.errors import ZpdError
from zpd_ray.training import model as module
from zpd_ray.training.collate import collate
from zpd_ray.training.loss import ResponseLoss
from zpd_ray.training.model import load_trainable, save_model
from zpd_ray.training.state import trainable

MakeConfig = Callable[..., Config]
BATCH = collate([[5, 6, 7], [8]], [[20, 21], [22, 23, 24]])


def load(config: Config, adapter: Path | None = None) -> nn.Module:
    return load_trainable(config, ModelRef(config.model.path, str(adapter) if adapter else None))


def train_a_little(model: nn.Module) -> None:
    optimizer = torch.optim.AdamW(trainable(model).values(), lr=1e-2)
    for _ in range(2):
        ResponseLoss(model)(**BATCH).backward()
        optimizer.step()
        optimizer.zero_grad()


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(BATCH["input_ids"], attention_mask=BATCH["attention_mask"]).logits


def test_lora_trains_the_adapter_alone_and_begins_as_the_base_model(make_config: MakeConfig) -> None:
    model = load(make_config())
    names = trainable(model)
    assert names
    assert all("lora_" in name for name in names)
    assert {p.dtype for p in names.values()} == {torch.float32}
    assert model.training
    base = AutoModelForCausalLM.from_pretrained(make_config().model.path, dtype=torch.float32)
    torch.testing.assert_close(logits(model), logits(base))


def test_a_new_adapter_depends_on_the_seed_alone(make_config: MakeConfig) -> None:
    torch.manual_seed(123)
    one = trainable(load(make_config(seed=5)))
    torch.manual_seed(456)
    torch.rand(7)
    two = trainable(load(make_config(seed=5)))
    other = trainable(load(make_config(seed=6)))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    drawn = [name for name in one if "lora_A" in name]
    assert drawn
    assert not any(torch.equal(one[name], other[name]) for name in drawn)


@pytest.mark.parametrize("rank", [1, 4])
def test_rank_and_targets_are_those_of_the_config(make_config: MakeConfig, rank: int) -> None:
    model = load(make_config(lora={"rank": rank, "targets": ["q_proj", "down_proj"]}))
    names = trainable(model)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in names} == {"q_proj", "down_proj"}
    assert {min(p.shape) for p in names.values()} == {rank}


def test_a_saved_adapter_is_safetensors_and_loads_as_it_was(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(lora={"rank": 2})
    model = load(config)
    train_a_little(model)
    save_model(config, model, load_tokenizer(config.model.path), tmp_path)
    assert (tmp_path / "adapter_model.safetensors").is_file()
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["target_modules"] == sorted(config.train.lora.targets)  # the same bytes from every process
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert not [p for p in tmp_path.iterdir() if p.name.startswith("model")]
    again = load(config, tmp_path)
    assert trainable(again).keys() == trainable(model).keys()
    assert torch.equal(logits(again), logits(model))
    base = AutoModelForCausalLM.from_pretrained(config.model.path, dtype=torch.float32)
    assert not torch.equal(logits(base), logits(model))
    assert torch.equal(logits(PeftModel.from_pretrained(base, tmp_path)), logits(model))


def test_an_adapter_that_is_given_trains_on(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(lora={"rank": 2})
    first = load(config)
    train_a_little(first)
    save_model(config, first, load_tokenizer(config.model.path), tmp_path)
    second = load(config, tmp_path)
    before = logits(second)
    second.train()
    train_a_little(second)
    assert not torch.equal(logits(second), before)


def test_full_fine_tuning_trains_and_saves_a_whole_model(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(method="full")
    model = load(config)
    assert len(trainable(model)) == len(list(model.parameters()))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    train_a_little(model)
    save_model(config, model, load_tokenizer(config.model.path), tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".bin", ".pt", ".pth", ".pkl")]
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(logits(again), logits(model))
    text = "How many clips?"
    base = AutoTokenizer.from_pretrained(config.model.path)
    assert AutoTokenizer.from_pretrained(tmp_path)(text).input_ids == base(text).input_ids
    assert torch.equal(logits(load_trainable(config, ModelRef(str(tmp_path)))), logits(model))


def test_gradient_checkpointing_changes_no_gradient(make_config: MakeConfig) -> None:
    grads = []
    for on in (False, True):
        model = load(make_config(gradient_checkpointing=on))
        train_a_little(model)  # B is 0 at first, and so is the gradient of A
        ResponseLoss(model)(**BATCH).backward()
        grads.append({name: p.grad for name, p in trainable(model).items()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("asked", [None, True, False])
@pytest.mark.parametrize("large", [False, True])
def test_activations_of_large_models_are_computed_twice_unless_the_config_says(
    asked: bool | None, large: bool, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGE", 1000 if large else 10**12)
    model = load(make_config(gradient_checkpointing=asked))
    assert model.get_base_model().is_gradient_checkpointing == (large if asked is None else asked)


def test_targets_that_the_model_lacks_are_refused_with_those_it_has(make_config: MakeConfig) -> None:
    with pytest.raises(ZpdError) as refused:
        load(make_config(lora={"targets": ["q_proj", "c_attn", "W_pack"]}))
    message = str(refused.value)
    assert "train.lora.targets names W_pack, c_attn, which the model does not have" in message
    assert "down_proj" in message
    assert "set train.lora.targets" in message


def test_lm_head_is_refused(make_config: MakeConfig) -> None:
    with pytest.raises(ZpdError, match="lm_head"):
        load(make_config(lora={"targets": ["q_proj", "lm_head"]}))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_pickled_weights_are_never_read(
    method: str, make_config: MakeConfig, model_dir: Path, tmp_path: Path
) -> None:
    for file in model_dir.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(AutoModelForCausalLM.from_pretrained(model_dir).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        load_trainable(make_config(method=method), ModelRef(str(tmp_path)))
