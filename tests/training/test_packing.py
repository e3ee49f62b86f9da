"""Packing: the same loss and gradients as with an item a row, and models that cannot are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    PreTrainedModel,
)

from tests.training.test_step import PROMPTS as SHORT
from tests.training.test_step import RESPONSES as REPLIES
from tests.training.test_step import assert_same, grads, learner_of
from zpd_ray.config import Config
from zpd_ray.errors import ZpdError
from zpd_ray.training.collate import IGNORED, collate
from zpd_ray.training.loss import ResponseLoss
from zpd_ray.training.packing import check_apart, first_fit, pack
from zpd_ray.training.step import accumulate, micro_batches

CPU = torch.device("cpu")
PROMPTS, RESPONSES = (
    [*SHORT, [17, 18, 19]],
    [*REPLIES, [35, 36, 37, 38, 39, 40, 41, 42, 43]],
)  # one of 12 tokens
LENGTHS = [len(p) + len(r) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
SMALL: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32}


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(0, 20))
def test_every_item_has_one_place_and_no_row_is_opened_while_another_has_room(
    lengths: list[int], more: int
) -> None:
    room = max(lengths) + more
    rows = first_fit(lengths, room)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    used = [sum(lengths[i] for i in row) for row in rows]
    assert max(used) <= room
    # First fit: no two rows would go into one.
    assert all(a + b > room for at, a in enumerate(used) for b in used[:at])
    assert rows == first_fit(lengths, room)


def test_a_row_holds_its_items_one_after_another() -> None:
    batch = pack(PROMPTS, RESPONSES, [[0], [1, 3], [2, 4]], 12)
    assert {name: tuple(t.shape) for name, t in batch.items()} == dict.fromkeys(batch, (3, 12))
    assert {t.dtype for t in batch.values()} == {torch.int64}
    assert batch["input_ids"][1].tolist() == [9, 22, 23, 24, 25, 26, 12, 13, 14, 28, 29, 30]
    assert batch["position_ids"][1].tolist() == [0, 1, 2, 3, 4, 5] * 2
    assert batch["position_ids"][0].tolist() == list(range(12))  # padding belongs to the last item
    labels = [-100, 22, 23, 24, 25, 26, -100, -100, -100, 28, 29, 30]
    assert batch["labels"][1].tolist() == labels
    assert int((batch["position_ids"] == 0).sum()) == 5


def test_the_first_token_of_a_row_s_second_item_is_not_predicted_from_the_first() -> None:
    batch = pack([[5], []], [[20], [21, 22]], [[0, 1]], 4)
    assert batch["labels"][0].tolist() == [IGNORED, 20, IGNORED, 22]


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("size", [1, 2, 99])
def test_gradients_are_those_of_an_item_a_row(
    make_config: Callable[..., Config], method: str, size: int
) -> None:
    config = make_config(method=method)
    plain, packed = learner_of(config), learner_of(config)
    expected = accumulate(plain, micro_batches(PROMPTS, RESPONSES, 99))
    batches, done = micro_batches(PROMPTS, RESPONSES, size, packing=True), []
    found = accumulate(packed, batches, done.append)
    assert found == (pytest.approx(expected[0], rel=1e-6), expected[1])
    assert_same(grads(plain.net), grads(packed.net))
    assert done[-1] == len(PROMPTS)
    assert sum(len(batch["labels"]) for batch in batches) == 4  # rows, of six items


@pytest.mark.parametrize("chunked", [True, False])
def test_a_window_and_learned_positions_and_all_logits_are_kept_apart_too(chunked: bool) -> None:
    """Gemma 2 looks four tokens back in every other layer; GPT-2's positions are rows of a table."""
    torch.manual_seed(0)
    window = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    models: list[PreTrainedModel] = [
        Gemma2ForCausalLM(Gemma2Config(**SMALL, **window, intermediate_size=64, sliding_window=4)),
        GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2)),
    ]
    for model in models:
        loss = ResponseLoss(model.eval())
        if not chunked:
            loss.finish = None
        check_apart(loss, CPU)
        packed = loss(**pack(PROMPTS, RESPONSES, first_fit(LENGTHS, 12), 12))
        assert packed.item() == pytest.approx(loss(**collate(PROMPTS, RESPONSES)).item(), rel=1e-5)


def test_trying_changes_neither_gradients_nor_mode(make_config: Callable[..., Config]) -> None:
    learner = learner_of(make_config(lora={"dropout": 0.5}))
    check_apart(learner.loss, learner.device)
    assert learner.net.training
    assert not grads(learner.net)


class SeesItsRow(LlamaForCausalLM):
    """A model that takes position ids and attends to the whole row: a mask hides nothing from it."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        forward = self.model.forward

        def whole(input_ids: Any, position_ids: Any = None, **rest: Any) -> Any:
            return forward(input_ids, **rest | {"attention_mask": torch.ones_like(input_ids)})

        self.model.forward = whole


def test_a_model_that_sees_its_whole_row_is_refused(make_config: Callable[..., Config]) -> None:
    leaky = SeesItsRow.from_pretrained(make_config().model.path)
    with pytest.raises(ZpdError, match=r"in SeesItsRow the NLL of an item is .*train\.packing = false"):
        check_apart(ResponseLoss(leaky), CPU)


def test_a_model_without_position_ids_is_refused() -> None:
    """BLOOM's positions are biases of its attention."""
    bloom = BloomForCausalLM(BloomConfig(**SMALL, n_layer=1, n_head=2))
    with pytest.raises(ZpdError, match=r"BloomForCausalLM takes none: set train\.packing = false"):
        check_apart(ResponseLoss(bloom), CPU)
