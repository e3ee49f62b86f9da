"""A model shared out among workers trains as a whole one does, and what it saves is whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, PreTrainedConfig, Qwen3MoeConfig

from tests import tiny
from tests.training.worlds import in_world
from zpd_ray.config import Config
from zpd_ray.engines import ModelRef
from zpd_ray.engines.model_files import load_tokenizer
from zpd_ray.errors import ZpdError
from zpd_ray.training import loss as loss_module
from zpd_ray.training import sharding as sharding_module
from zpd_ray.training import step as step_module
from zpd_ray.training.model import load_trainable, save_model
from zpd_ray.training.sharding import blocks, gathered, sharded_loss
from zpd_ray.training.state import load_history, load_state, save_state, trainable
from zpd_ray.training.step import (
    Batch,
    Learner,
    StageProgress,
    Workers,
    accumulate,
    item_nlls,
    micro_batches,
    new_learner,
    sharded_learner,
    train_step,
)

MakeConfig = Callable[..., Config]
Weights = dict[str, np.ndarray]
CPU = torch.device("cpu")

PROMPTS = [[5, 6, 7, 8], [9], [10, 11], [12, 13, 14], [15, 16]]
RESPONSES = [[20, 21], [22, 23, 24, 25, 26], [27], [28, 29, 30], [31, 32, 33, 34]]
# Rows of each step's global batch: of several workers some have fewer micro-batches, or no row at all.
STEPS = [[0, 1, 2, 3, 4], [1, 2, 3], [4, 0, 2, 1, 3], [3]]
HOW: dict[str, dict[str, Any]] = {
    "lora": {"lora": {"rank": 3}},  # fewer rows than four workers
    "lora, packed": {"packing": True},
    "lora, recomputed": {"gradient_checkpointing": True},
    "lora, offloaded": {"offload": True},
    "full": {"method": "full"},
    "full, recomputed": {"method": "full", "gradient_checkpointing": True},
    "full, offloaded": {"method": "full", "offload": True},
}


@pytest.fixture(scope="module")
def two_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_model(tmp_path_factory.mktemp("llama"), layers=2, sharpness=1.0)


@pytest.fixture(scope="module")
def tied_dir(two_blocks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one matrix for the embedding and the head."""
    directory = tmp_path_factory.mktemp("tied")
    config = AutoModelForCausalLM.from_pretrained(two_blocks).config
    config.tie_word_embeddings = True
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    tiny.build_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture(autouse=True)
def _head_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three positions, computed again in the backward pass: forked workers do the same."""
    monkeypatch.setattr(loss_module, "chunk_rows", lambda model, device: 3)


def changed(config: Config, **train: Any) -> Config:
    return Config.model_validate(config.model_dump() | {"train": config.train.model_dump() | train})


def start(config: Config, workers: Workers) -> Learner:
    """As the training loop does: shared out, with DDP, or alone."""
    torch.manual_seed(workers.rank)  # whatever a worker has drawn before
    model = ModelRef(config.model.path)
    if config.train.sharding == "fsdp":
        return sharded_learner(config, sharded_loss(config, model, CPU), CPU, workers)
    prepare = DistributedDataParallel if workers.count > 1 else (lambda loss: loss)
    return new_learner(config, load_trainable(config, model), workers, prepare)


def batches_of(learner: Learner, step: int) -> list[Batch]:
    """This worker's share."""
    own = STEPS[step][learner.workers.rank :: learner.workers.count]
    train = learner.config.train
    prompts, responses = [PROMPTS[i] for i in own], [RESPONSES[i] for i in own]
    return micro_batches(prompts, responses, train.micro_batch_size, train.packing)


def take(learner: Learner, progress: StageProgress, steps: list[int]) -> None:
    for step in steps:
        train_step(learner, progress, batches_of(learner, step))


def weights_of(learner: Learner) -> Weights:
    return {name: tensor.numpy() for name, tensor in gathered(learner.net, CPU, keep=True).items()}


@dataclass(frozen=True)
class Trained:
    """gradients: of the first step. weights, history: after all. nlls: of items, half way."""

    gradients: Weights
    weights: Weights
    history: dict[str, list[float]]
    nlls: list[float]


def trained(workers: Workers, config: Config) -> Trained:
    learner, progress = start(config, workers), StageProgress(0, len(STEPS))
    first = gradients(learner)
    take(learner, progress, [0, 1])
    nlls = item_nlls(learner, PROMPTS[:2], RESPONSES[:2])  # training goes on as if it were not
    take(learner, progress, [2, 3])
    return Trained(first, weights_of(learner), progress.history, nlls)


def gradients(learner: Learner) -> Weights:
    """LoRA's B is 0 at first, and with it the gradient of A: it is moved a little."""
    weights = trainable(learner.net)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.add_(0.01 if "lora_B" in name else 0.0)
    accumulate(learner, batches_of(learner, 0))
    grads = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
    whole = {name: g.full_tensor() if isinstance(g, DTensor) else g for name, g in grads.items()}
    learner.optimizer.zero_grad(set_to_none=True)
    return {name: grad.numpy().copy() for name, grad in whole.items()}


def assert_close(ours: Weights, theirs: Weights) -> None:
    """Up to rounding: AdamW moves a weight by the rate, 1e-2, however small its gradient and its error."""
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        apart = np.abs(ours[name] - weight)
        assert apart.max() < 2e-4, name
        assert apart.mean() < 2e-6, name


def every(cheap: set[tuple[str, int]]) -> list[Any]:
    """All ways with two and with four workers; those that are not cheap at night."""
    return [
        pytest.param(how, workers, marks=[] if (how, workers) in cheap else pytest.mark.nightly)
        for how in HOW
        for workers in (2, 4)
    ]


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


# --- state ---


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


# --- results ---


def reported(workers: Workers, config: Config, place: Path) -> None:
    learner = start(config, workers)
    take(learner, StageProgress(0, len(STEPS)), [0])
    sharded = config.train.sharding == "fsdp"
    state = gathered(learner.net, CPU, keep=workers.rank == 0) if sharded else None
    if workers.rank == 0:
        save_model(config, learner.net, load_tokenizer(config.model.path), place, state)


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


def assert_files_close(ours: Path, theirs: Path) -> None:
    with safe_open(ours, "pt") as one, safe_open(theirs, "pt") as other:
        assert one.metadata() == other.metadata()
    assert_close(
        {name: tensor.numpy() for name, tensor in load_file(ours).items()},
        {name: tensor.numpy() for name, tensor in load_file(theirs).items()},
    )


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


class Nameless(nn.Module):
    """A model that does not say what its blocks are."""


def test_a_model_without_named_blocks_is_refused() -> None:
    with pytest.raises(ZpdError, match=r"Nameless does not name its blocks .*train.sharding = 'none'"):
        blocks(Nameless())
