"""What workers that share a model out save: their states, each its part, and one whole result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.training.shares import (
    CPU,
    HOW,
    STEPS,
    Weights,
    assert_files_close,
    changed,
    every,
    reported,
    start,
    take,
    weights_of,
)
from tests.training.test_step import MakeConfig
from tests.training.worlds import in_world
from zpd_ray.config import Config
from zpd_ray.engines import ModelRef
from zpd_ray.errors import ZpdError
from zpd_ray.training.model import load_trainable
from zpd_ray.training.sharding import sharded_loss
from zpd_ray.training.state import load_history, load_state, save_state, trainable
from zpd_ray.training.step import StageProgress, Workers, sharded_learner


def interrupted(workers: Workers, config: Config, place: Path) -> tuple[Weights, Weights, int]:
    """Weights of a learner that took all steps, and of one that went on from its state after two.

    Also the numbers that this worker's file holds.
    """
    part = (workers.rank, workers.count)
    learner, progress = start(config, workers), StageProgress(0, len(STEPS))
    take(learner, progress, [0, 1])
    save_state(place, learner.net, learner.optimizer, progress.counters, progress.history, part)
    take(learner, progress, [2, 3])
    workers.total(0.0)  # all have written
    again, later = start(config, workers), StageProgress(0, len(STEPS))
    take(again, StageProgress(0, len(STEPS)), [3])  # what it holds must not matter
    later.counters = load_state(place, again.net, again.optimizer)
    later.history |= load_history(place)
    take(again, later, [2, 3])
    assert later.history == progress.history
    assert later.counters == progress.counters
    file = place / f"trainer-{workers.rank + 1:05d}-of-{workers.count:05d}.safetensors"
    held = sum(tensor.numel() for name, tensor in load_file(file).items() if name.startswith("exp_avg."))
    return weights_of(learner), weights_of(again), held


@pytest.mark.parametrize(("how", "workers"), every({("lora", 4), ("full", 2)}))
def test_training_goes_on_from_the_workers_files_to_the_bit(
    make_config: MakeConfig, two_blocks: Path, tmp_path: Path, how: str, workers: int
) -> None:
    section = {"learning_rate": 1e-2, "warmup": 0.0, "lora": {"rank": 3, "dropout": 0.3}}
    config = make_config(
        path=two_blocks, workers=workers, batch_size=4, sharding="fsdp", **HOW[how] | section
    )
    results = in_world(workers, interrupted, config, tmp_path)
    for went_on, resumed, _ in results:
        assert went_on.keys() == resumed.keys()
        assert all(np.array_equal(resumed[name], weight) for name, weight in went_on.items())
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == [f"trainer-{i + 1:05d}-of-{workers:05d}.safetensors" for i in range(workers)]
    # Each holds its share alone.
    numbers = sum(weight.size for weight in results[0][0].values())
    assert sum(held for *_, held in results) == numbers
    if "lora" not in how:  # whose matrices have three rows or many
        assert max(held for *_, held in results) == pytest.approx(numbers / workers, rel=0.1)


def test_files_of_four_workers_are_read_by_one_and_by_two(
    make_config: MakeConfig, two_blocks: Path, tmp_path: Path
) -> None:
    config = make_config(path=two_blocks, workers=4, batch_size=4, sharding="fsdp", learning_rate=1e-2)
    weights = in_world(4, saved_after_a_step, config, tmp_path)[0]
    alone = start(changed(config, sharding="none", workers=1), Workers())
    assert load_state(tmp_path, alone.net, alone.optimizer)["step"] == 1.0
    assert all(np.array_equal(w.detach().numpy(), weights[n]) for n, w in trainable(alone.net).items())
    for again in in_world(2, loaded, changed(config, workers=2), tmp_path):
        assert all(np.array_equal(again[name], weight) for name, weight in weights.items())
    (tmp_path / "trainer-00003-of-00004.safetensors").unlink()
    with pytest.raises(ZpdError, match=r"is not whole: .*expected .*trainer-00003-of-00004.safetensors"):
        load_state(tmp_path, alone.net, alone.optimizer)


def saved_after_a_step(workers: Workers, config: Config, place: Path) -> Weights:
    learner, progress = start(config, workers), StageProgress(0, len(STEPS))
    take(learner, progress, [0])
    save_state(place, learner.net, learner.optimizer, progress.counters, None, (workers.rank, workers.count))
    return weights_of(learner)


def loaded(workers: Workers, config: Config, place: Path) -> Weights:
    learner = start(config, workers)
    load_state(place, learner.net, learner.optimizer)
    return weights_of(learner)


@pytest.mark.parametrize(("method", "tied"), [("lora", False), ("full", True), ("full", False)])
def test_a_result_is_that_of_a_whole_model_file_by_file(
    make_config: MakeConfig, two_blocks: Path, tied_dir: Path, tmp_path: Path, method: str, tied: bool
) -> None:
    config = make_config(
        path=tied_dir if tied else two_blocks, method=method, workers=2, batch_size=4, sharding="fsdp"
    )
    ours, theirs = tmp_path / "sharded", tmp_path / "whole"
    in_world(2, reported, config, ours)
    in_world(2, reported, changed(config, sharding="none"), theirs)
    names = sorted(file.name for file in theirs.iterdir())
    assert sorted(file.name for file in ours.iterdir()) == names
    for name in names:
        if name.endswith(".safetensors"):
            assert_files_close(ours / name, theirs / name)
        else:
            assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    result = ModelRef(config.model.path, str(ours)) if method == "lora" else ModelRef(str(ours))
    load_trainable(config, result)


def continued(workers: Workers, config: Config, adapter: Path) -> Weights:
    model = ModelRef(config.model.path, str(adapter), 1)
    return weights_of(sharded_learner(config, sharded_loss(config, model, CPU), CPU, workers))


def test_a_stage_begins_with_the_adapter_of_the_one_before(
    make_config: MakeConfig, two_blocks: Path, tmp_path: Path
) -> None:
    config = make_config(path=two_blocks, workers=2, batch_size=4, sharding="fsdp", learning_rate=1e-2)
    in_world(2, reported, config, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["init_lora_weights"] is True
    net = load_trainable(config, ModelRef(str(two_blocks), str(tmp_path), 1))
    for weights in in_world(2, continued, config, tmp_path):
        assert all(np.array_equal(weights[n], w.detach().numpy()) for n, w in trainable(net).items())
