"""A training step in one process: whatever the micro-batches, workers and interruptions, the same step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from zpd_ray.config import Config
from zpd_ray.engines import ModelRef
from zpd_ray.training.model import load_trainable
from zpd_ray.training.state import load_history, load_state, save_state, trainable
from zpd_ray.training.step import (
    Learner,
    StageProgress,
    Workers,
    accumulate,
    item_nlls,
    micro_batches,
    new_learner,
    seed_dropout,
    train_step,
)

MakeConfig = Callable[..., Config]
Grads = dict[str, torch.Tensor]

# Responses differ in length: a mean of means would not pass.
PROMPTS = [[5, 6, 7, 8], [9], [10, 11], [12, 13, 14], [15, 16]]
RESPONSES = [[20, 21], [22, 23, 24, 25, 26], [27], [28, 29, 30], [31, 32, 33, 34]]
TOKENS = sum(len(response) for response in RESPONSES)


def learner_of(config: Config, workers: Workers | None = None) -> Learner:
    """A learner whose weights all have a gradient: LoRA's B is 0 at first, and with it the gradient of A."""
    net = load_trainable(config, ModelRef(config.model.path))
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in trainable(net).values():
            weight.add_(0.02 * torch.randn_like(weight))
    return new_learner(config, net, workers or Workers())


def taken(indices: list[int], size: int = 99) -> list[dict[str, torch.Tensor]]:
    """Micro-batches of some of the rows."""
    return micro_batches([PROMPTS[i] for i in indices], [RESPONSES[i] for i in indices], size)


def grads(net: nn.Module) -> Grads:
    return {name: weight.grad.clone() for name, weight in trainable(net).items() if weight.grad is not None}


def assert_same(one: Grads, other: Grads, most: float = 1e-6) -> None:
    assert one.keys() == other.keys()
    for name, grad in one.items():
        torch.testing.assert_close(other[name], grad, rtol=1e-5, atol=most)


@pytest.fixture
def whole(make_config: MakeConfig) -> Learner:
    """A learner that has seen all rows in one batch, and not moved yet."""
    learner = learner_of(make_config())
    accumulate(learner, taken([0, 1, 2, 3, 4]))
    return learner


def test_loss_and_gradient_are_those_of_a_plain_mean_over_response_tokens(whole: Learner) -> None:
    """One row at a time, token by token."""
    net, total = learner_of(whole.config).net, torch.zeros(())
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        logp = net(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        for at, token in enumerate(response, start=len(prompt) - 1):
            total = total - logp[at, token]
    (total / TOKENS).backward()
    assert_same(grads(net), grads(whole.net))
    nll, tokens = accumulate(whole, taken([0, 1, 2, 3, 4]))
    assert tokens == TOKENS
    assert nll == pytest.approx(total.item(), rel=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_micro_batches_of_any_size_add_up_to_the_batch(whole: Learner, size: int) -> None:
    other = learner_of(whole.config)
    batches = taken([0, 1, 2, 3, 4], size)
    assert [len(batch["labels"]) for batch in batches] == [size] * (5 // size) + [5 % size] * (5 % size > 0)
    accumulate(other, batches)
    assert_same(grads(whole.net), grads(other.net))


@pytest.mark.parametrize("shares", [[[0, 2, 4], [1, 3]], [[0, 1, 2, 3, 4], []], [[4], [3, 2], [1, 0]]])
@pytest.mark.parametrize("size", [1, 99])
def test_workers_with_the_batch_dealt_between_them_equal_one(
    whole: Learner, shares: list[list[int]], size: int
) -> None:
    """Each alone with the sum over all given to it; the mean of their gradients, as workers exchange it.

    A worker without a row takes part with loss and gradient 0.
    """
    each = []
    for rank, share in enumerate(shares):
        own = sum(len(RESPONSES[i]) for i in share)

        def total(value: float, own: int = own) -> float:
            assert value == own
            return float(TOKENS)

        learner = learner_of(whole.config, Workers(rank, len(shares), total))
        nll, tokens = accumulate(learner, taken(share, size))
        assert tokens == TOKENS
        assert share or nll == 0.0
        each.append(grads(learner.net))
    mean = {name: torch.stack([one[name] for one in each]).mean(0) for name in each[0]}
    assert_same(grads(whole.net), mean)


def test_counters_add_up_what_all_workers_saw(make_config: MakeConfig) -> None:
    learner = learner_of(make_config(), Workers(0, 1, lambda own: 2 * own))
    progress = StageProgress(0, 2)
    first, _ = accumulate(learner_of(learner.config), taken([0, 1]))
    train_step(learner, progress, taken([0, 1]))
    assert progress.step == 1
    assert progress.counters == {"step": 1.0, "nll": pytest.approx(2 * first, rel=1e-6), "tokens": 14.0}
    assert progress.history["tokens"] == [14.0]
    assert progress.history["loss"] == [pytest.approx(first / 7, rel=1e-6)]


def test_dropout_draws_depend_on_seed_stage_step_and_worker_alone() -> None:
    def drawn(*place: int) -> float:
        torch.rand(5)  # whatever was drawn before
        seed_dropout(*place)
        return float(torch.rand(()))

    places = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    assert len({drawn(*place) for place in places}) == len(places)
    assert [drawn(*place) for place in places] == [drawn(*place) for place in places]


def test_a_step_draws_the_dropout_of_its_own_worker(make_config: MakeConfig) -> None:
    config = make_config(lora={"dropout": 0.5}, learning_rate=1e-2)

    def after(rank: int) -> torch.Tensor:
        learner = learner_of(config, Workers(rank))
        torch.rand(rank + 7)
        train_step(learner, StageProgress(1, 4), taken([0, 1]))
        return torch.cat([weight.detach().flatten() for weight in trainable(learner.net).values()])

    assert torch.equal(after(0), after(0))
    assert not torch.equal(after(0), after(1))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_resumed_from_its_saved_state_equals_the_uninterrupted_to_the_bit(
    make_config: MakeConfig, tmp_path: Path, method: str
) -> None:
    """With dropout, in a process that has drawn other numbers."""
    config = make_config(method=method, lora={"dropout": 0.3}, learning_rate=1e-2, warmup=0.0)
    batches = [taken([0, 1, 2], 2), taken([3, 4]), taken([]), taken([1, 4], 1)]
    learner, progress = learner_of(config), StageProgress(0, len(batches))
    learner.workers = Workers(total=lambda own: own or 1.0)  # another worker has a token left
    for number, batch in enumerate(batches):
        if number == 2:
            save_state(tmp_path, learner.net, learner.optimizer, progress.counters, progress.history)
        train_step(learner, progress, batch)

    again = learner_of(make_config(seed=0, **config.train.model_dump(exclude_unset=True)), learner.workers)
    torch.manual_seed(99)
    counters = load_state(tmp_path, again.net, again.optimizer)
    resumed = StageProgress(0, len(batches), counters, load_history(tmp_path))
    assert resumed.step == 2
    for batch in batches[resumed.step :]:
        train_step(again, resumed, batch)
    assert resumed == progress
    for name, weight in trainable(learner.net).items():
        assert torch.equal(trainable(again.net)[name], weight), name


class Recorder(torch.optim.AdamW):
    """AdamW that keeps the gradients and the rate of its last step."""

    def step(self, closure: Any = None) -> Any:
        weights = [weight for group in self.param_groups for weight in group["params"]]
        self.norm = float(torch.cat([weight.grad.flatten() for weight in weights]).norm())
        self.rate = self.param_groups[0]["lr"]
        return super().step(closure)


@pytest.mark.parametrize("most", [1e-3, 1e3])
def test_the_gradient_is_clipped_to_the_norm_of_the_config(make_config: MakeConfig, most: float) -> None:
    schedule = {"learning_rate": 1e-2, "warmup": 0.0, "schedule": "linear", "schedule_over": "stage"}
    learner = learner_of(make_config(max_grad_norm=most, **schedule))
    accumulate(learner, taken([0, 1, 2]))
    norm = float(torch.cat([grad.flatten() for grad in grads(learner.net).values()]).norm())
    learner.net.zero_grad()
    learner.optimizer = Recorder(trainable(learner.net).values(), lr=0.0)
    progress = StageProgress(0, 10)
    train_step(learner, progress, taken([0, 1, 2]))
    assert learner.optimizer.norm == pytest.approx(min(norm, most), rel=1e-4)
    assert learner.optimizer.rate == pytest.approx(1e-2 * 0.95)  # the middle of the first of ten steps
    assert progress.history["learning_rate"] == [learner.optimizer.rate]
    assert not grads(learner.net)  # forgotten: the next step begins with none


def test_item_nlls_are_means_without_dropout_and_training_goes_on(make_config: MakeConfig) -> None:
    learner = learner_of(make_config(lora={"dropout": 0.5}))
    nlls = item_nlls(learner, PROMPTS, RESPONSES)
    assert nlls == item_nlls(learner, PROMPTS, RESPONSES)
    assert learner.net.training
    plain = learner_of(make_config())
    summed, _ = accumulate(plain, taken([0, 1, 2, 3, 4]))
    each = [nll * len(response) for nll, response in zip(nlls, RESPONSES, strict=True)]
    assert sum(each) == pytest.approx(summed, rel=1e-5)


def test_steps_lower_the_loss_of_full_fine_tuning_and_of_an_adapter(make_config: MakeConfig) -> None:
    for method, rate in (("lora", 1e-2), ("full", 2e-3)):
        learner = learner_of(make_config(method=method, learning_rate=rate))
        before = item_nlls(learner, PROMPTS, RESPONSES)
        progress = StageProgress(0, 4)
        for _ in range(4):
            train_step(learner, progress, taken([0, 1, 2, 3, 4]))
        after = item_nlls(learner, PROMPTS, RESPONSES)
        trained = progress.counters["nll"] / progress.counters["tokens"]
        weights = [len(response) / TOKENS for response in RESPONSES]
        means = [sum(w * nll for w, nll in zip(weights, nlls, strict=True)) for nlls in (after, before)]
        assert means[0] < trained < means[1]
