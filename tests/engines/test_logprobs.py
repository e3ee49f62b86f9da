"""Scores against the model's own forward pass, for models that finish their logits in several ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from unittest import mock

import numpy as np
import pytest
import torch
import transformers
from transformers import PreTrainedModel

from zpd_ray.engines import logprobs as scoring
from zpd_ray.engines.encoding import TokenScores, row_means
from zpd_ray.engines.logprobs import find_finish, score_tokens

SIZE = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def build(name: str, **changes: object) -> PreTrainedModel:
    """A model with random weights, its logits spread to where a cap bends."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SIZE, **changes})
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(30.0)
    return model


# Model and whether find_finish knows what it does after its head.
MODELS: dict[str, tuple[Callable[[], PreTrainedModel], bool]] = {
    "llama": (lambda: build("Llama", tie_word_embeddings=False), True),
    "gemma2, capped": (lambda: build("Gemma2", final_logit_softcapping=5.0, sliding_window=8), True),
    "cohere, multiplied": (lambda: build("Cohere", logit_scale=0.3), True),
    "granite, divided": (lambda: build("Granite", logits_scaling=4.0), True),
    "modernbert decoder, a layer before its head": (lambda: build("ModernBertDecoder"), False),
}


def rows(seed: int = 0) -> tuple[list[list[int]], list[int]]:
    """Ids of prompt + response of uneven lengths, and the lengths of the prompts."""
    rng = np.random.default_rng(seed)
    ids = [rng.integers(3, 300, size=n).tolist() for n in (40, 33, 20, 7, 2)]
    return ids, [10, 32, 1, 5, 1]


def reference(model: PreTrainedModel, ids: Sequence[Sequence[int]], prompts: Sequence[int]) -> TokenScores:
    """One row at a time, all logits."""
    logp, greedy = [], []
    for row, prompt in zip(ids, prompts, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([row])).logits[0, prompt - 1 : -1].double()
        targets = torch.tensor(row[prompt:])
        logp.append(logits.log_softmax(-1).gather(1, targets[:, None])[:, 0])
        greedy.append(logits.argmax(-1) == targets)
    return TokenScores(torch.cat(logp).numpy(), torch.cat(greedy).numpy())


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_the_models_own_forward(name: str) -> None:
    make, known = MODELS[name]
    model = make()
    finish = find_finish(model)
    assert (finish is not None) == known
    ids, prompts = rows()
    expected = reference(model, ids, prompts)
    for way in {finish, None}:
        scores = score_tokens(model, way, ids, prompts)
        np.testing.assert_allclose(scores.logp, expected.logp, atol=2e-5)
        np.testing.assert_array_equal(scores.greedy, expected.greedy)


@pytest.mark.parametrize("name", ["llama", "gemma2, capped", "cohere, multiplied"])
def test_what_a_model_does_after_its_head_is_found_in_half_precision_too(name: str) -> None:
    model = MODELS[name][0]()
    logits = torch.linspace(-20, 20, 41)
    found = find_finish(model.to(torch.bfloat16))
    expected = find_finish(model.to(torch.float32))
    assert found is not None
    assert expected is not None
    torch.testing.assert_close(found(logits), expected(logits))


def test_the_head_alone_would_be_wrong_for_a_capped_model() -> None:
    model = MODELS["gemma2, capped"][0]()
    ids, prompts = rows()
    bare = score_tokens(model, lambda logits: logits, ids, prompts)
    assert np.abs(bare.logp - reference(model, ids, prompts).logp).max() > 0.1


def test_first_choices_are_greedy_matches_and_ties_go_to_the_first_token() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0], [0.0, 2.0, 2.0], [3.0, 1.0, 0.0], [3.0, 1.0, 0.0]])
    logp, greedy = scoring._reference(logits, torch.tensor([1, 2, 0, 1]))
    assert greedy.tolist() == [True, False, True, False]
    torch.testing.assert_close(logp, logits.log_softmax(1)[range(4), [1, 2, 0, 1]])


def test_row_means() -> None:
    scores = TokenScores(np.array([-1.0, -3.0, -5.0], dtype=np.float32), np.array([True, False, True]))
    nll, n_greedy = row_means(scores, np.array([2, 1]))
    assert (nll.tolist(), n_greedy.tolist()) == ([2.0, 5.0], [1, 1])
    assert (nll.dtype, n_greedy.dtype) == (np.float32, np.int32)


class LargestVocabularyTensor(torch.utils._python_dispatch.TorchDispatchMode):
    """Rows of the largest activation whose last dimension is the vocabulary."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.rows = size, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.ndim > 1 and tensor.shape[-1] == self.size:
                self.rows = max(self.rows, tensor.numel() // self.size)
        return out


def test_no_tensor_with_the_vocabulary_is_larger_than_a_chunk() -> None:
    model = MODELS["llama"][0]()
    finish = find_finish(model)
    ids, prompts = [list(range(3, 60))] * 12, [2] * 12
    with mock.patch.dict(scoring.CHUNK_ELEMENTS, {"cpu": 100 * SIZE["vocab_size"]}):
        with LargestVocabularyTensor(300) as seen:
            score_tokens(model, finish, ids, prompts)
        assert seen.rows == 100  # of the 660 response positions
    with LargestVocabularyTensor(300) as seen, torch.no_grad():
        model(torch.tensor(ids))
    assert seen.rows == 12 * 57  # the measure does see a full tensor of logits
