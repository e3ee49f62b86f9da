"""Trainer state: training goes on after a reload as if nothing had happened, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.optim import AdamW

from zpd_ray.config import Config
from zpd_ray.engines import ModelRef
from zpd_ray.training.collate import collate
from zpd_ray.training.loss import ResponseLoss
from zpd_ray.training.model import load_trainable
from zpd_ray.training.state import load_state, save_state, trainable

MakeConfig = Callable[..., Config]


def set_up(config: Config) -> tuple[nn.Module, AdamW]:
    model = load_trainable(config, ModelRef(config.model.path))
    return model, AdamW(trainable(model).values(), lr=0.0, weight_decay=0.01)


def step(model: nn.Module, optimizer: AdamW, number: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = 1e-2 / (1 + number)
    batch = collate([[5 + number, 6], [7]], [[20, 21 + number], [22, 23, 24]])
    ResponseLoss(model)(**batch).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("at", [0, 1, 3])
def test_continues_bit_for_bit(make_config: MakeConfig, tmp_path: Path, method: str, at: int) -> None:
    config = make_config(method=method, lora={"rank": 2})
    model, optimizer = set_up(config)
    for number in range(at):
        step(model, optimizer, number)
    save_state(tmp_path, model, optimizer, {"step": float(at), "nll": 1 / 3})
    for number in range(at, 5):
        step(model, optimizer, number)

    again, other = set_up(config)
    with torch.no_grad():  # what it begins with must not matter
        for weight in trainable(again).values():
            weight.add_(1.0)
    counters = load_state(tmp_path, again, other)
    assert counters == {"step": float(at), "nll": 1 / 3}
    for number in range(at, 5):
        step(again, other, number)
    for name, weight in trainable(model).items():
        assert torch.equal(trainable(again)[name], weight), name
        for moment, value in optimizer.state[weight].items():
            assert torch.equal(other.state[trainable(again)[name]][moment], value), (name, moment)


def test_the_file_holds_plain_float_tensors_of_what_trains(make_config: MakeConfig, tmp_path: Path) -> None:
    model, optimizer = set_up(make_config(lora={"rank": 2}))
    step(model, optimizer, 0)
    save_state(tmp_path, model, optimizer, {"step": 1.0})
    assert [p.name for p in tmp_path.iterdir()] == ["trainer.safetensors"]
    tensors = load_file(tmp_path / "trainer.safetensors")
    names = trainable(model).keys()
    kinds = ("weight", "step", "exp_avg", "exp_avg_sq")
    assert tensors.keys() == {f"{kind}.{name}" for kind in kinds for name in names} | {"counter.step"}
    assert tensors["counter.step"].dtype == torch.float64


def test_counters_keep_every_bit(make_config: MakeConfig, tmp_path: Path) -> None:
    model, optimizer = set_up(make_config(lora={"rank": 1}))
    counters = {"step": 2.0**40 + 1, "nll": 0.1 + 0.2, "tokens": 0.0}
    save_state(tmp_path, model, optimizer, counters)
    assert load_state(tmp_path, model, optimizer) == counters
