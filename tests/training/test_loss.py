"""Batches, and the loss over response tokens alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM, PreTrainedModel

from zpd_ray.training import loss as module
from zpd_ray.training.collate import IGNORED, collate
from zpd_ray.training.loss import ResponseLoss

PROMPTS = [[5, 6, 7, 8], [9], [10, 11]]
RESPONSES = [[20, 21], [22, 23, 24, 25, 26], [27]]


@pytest.fixture(scope="module")
def model(model_dir: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)


def response_nll(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return ResponseLoss(model)(**batch)


def plain_nll(model: PreTrainedModel, prompts: list[list[int]], responses: list[list[int]]) -> torch.Tensor:
    """One sample at a time, token by token."""
    total = torch.zeros(())
    for prompt, response in zip(prompts, responses, strict=True):
        logp = model(torch.tensor([prompt + response])).logits[0].float().log_softmax(-1)
        for at, token in enumerate(response, start=len(prompt) - 1):
            total = total - logp[at, token]
    return total


def test_collate_pads_right_and_labels_the_response_alone() -> None:
    batch = collate(PROMPTS, RESPONSES)
    assert {name: tuple(t.shape) for name, t in batch.items()} == dict.fromkeys(batch, (3, 6))
    assert {t.dtype for t in batch.values()} == {torch.int64}
    assert batch["attention_mask"].sum(dim=1).tolist() == [6, 6, 3]
    for i, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        whole = prompt + response
        assert batch["input_ids"][i, : len(whole)].tolist() == whole
        labels = batch["labels"][i]
        assert labels[labels != IGNORED].tolist() == response
        assert (labels[: len(prompt)] == IGNORED).all()
        assert (labels[len(whole) :] == IGNORED).all()


def test_loss_is_that_of_a_plain_pass_one_sample_at_a_time(model: PreTrainedModel) -> None:
    batched = response_nll(model, collate(PROMPTS, RESPONSES))
    assert batched.item() == pytest.approx(plain_nll(model, PROMPTS, RESPONSES).item(), rel=1e-5)


def test_gradient_is_that_of_a_plain_pass(model: PreTrainedModel) -> None:
    weight = model.model.layers[0].mlp.down_proj.weight
    batched = torch.autograd.grad(response_nll(model, collate(PROMPTS, RESPONSES)), weight)[0]
    plain = torch.autograd.grad(plain_nll(model, PROMPTS, RESPONSES), weight)[0]
    torch.testing.assert_close(batched, plain, rtol=1e-4, atol=1e-4)


def test_only_what_predicts_a_label_goes_through_the_head(model: PreTrainedModel) -> None:
    loss, seen = ResponseLoss(model), list[torch.Size]()
    hook = model.lm_head.register_forward_hook(lambda head, given, out: seen.append(out.shape))
    loss(**collate(PROMPTS, RESPONSES))
    hook.remove()
    assert [shape[0] for shape in seen] == [sum(map(len, RESPONSES))]


@pytest.mark.parametrize("rows", [1, 3, 7, 8])
def test_chunks_of_any_size_give_the_same_loss_and_gradients(
    model: PreTrainedModel, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight labels; the head trains here, as in full fine-tuning, so that chunks add up in its gradient."""
    batch, found = collate(PROMPTS, RESPONSES), []
    for size in (99, rows):
        monkeypatch.setattr(module, "chunk_rows", lambda model, device, size=size: size)
        loss = response_nll(model, batch)
        loss.backward()
        found.append((loss.item(), {name: p.grad.clone() for name, p in model.named_parameters()}))
        model.zero_grad()
    (whole, grads), (chunked, others) = found
    assert chunked == pytest.approx(whole, rel=1e-6)
    for name, grad in grads.items():
        torch.testing.assert_close(others[name], grad, rtol=1e-5, atol=1e-5 * float(grad.abs().max()))


def test_a_model_whose_head_is_not_understood_computes_all_logits(model: PreTrainedModel) -> None:
    batch, loss = collate(PROMPTS, RESPONSES), ResponseLoss(model)
    assert loss.finish is not None
    expected = loss(**batch).item()
    loss.finish = None
    assert loss(**batch).item() == pytest.approx(expected, rel=1e-6)


def test_a_model_that_caps_its_logits_is_trained_with_the_cap() -> None:
    config = Gemma2Config(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, final_logit_softcapping=2.0, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    capped = Gemma2ForCausalLM(config)
    with torch.no_grad():
        capped.lm_head.weight.mul_(50.0)  # so that the cap bends
    ids = collate(PROMPTS, RESPONSES)
    assert ResponseLoss(capped).finish is not None
    assert response_nll(capped, ids).item() == pytest.approx(
        plain_nll(capped, PROMPTS, RESPONSES).item(), rel=1e-4
    )


def test_summed_over_any_split_into_micro_batches(model: PreTrainedModel) -> None:
    whole = response_nll(model, collate(PROMPTS, RESPONSES)).item()
    pieces = [response_nll(model, collate([p], [r])).item() for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    assert sum(pieces) == pytest.approx(whole, rel=1e-5)


def test_padding_makes_no_difference(model: PreTrainedModel) -> None:
    batch = collate(PROMPTS, RESPONSES)
    expected = response_nll(model, batch).item()
    batch["input_ids"][batch["attention_mask"] == 0] = 99
    assert response_nll(model, batch).item() == pytest.approx(expected, rel=1e-6)


def test_a_batch_without_a_label_has_loss_zero_and_a_gradient(model: PreTrainedModel) -> None:
    """What a worker computes whose shard ran out: it must still take part in the all-reduce."""
    loss = response_nll(model, collate([[0, 0]], [[]]))
    assert loss.item() == 0.0
    loss.backward()
    assert all((p.grad == 0).all() for p in model.parameters() if p.grad is not None)
    model.zero_grad()


def test_loss_of_half_precision_logits_is_summed_in_float32(model_dir: Path) -> None:
    half = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16)
    assert response_nll(half, collate(PROMPTS, RESPONSES)).dtype == torch.float32
