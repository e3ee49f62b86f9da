"""The sampler against the distribution it samples from, and the decoding loop against generate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from zpd_ray.engines.decoding import complete, invert, pick_first, picker

STOPS = {1}


@pytest.fixture(scope="module")
def model(model_dir: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(model_dir).eval()


def prompts(seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(5, 400, size=n).tolist() for n in (12, 12, 3, 7, 1, 9)]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_the_softmax_probabilities(temperature: float) -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0, -np.inf])
    u = torch.from_numpy((np.arange(20_000) + 0.5) / 20_000)
    shuffled = u[torch.randperm(len(u), generator=torch.Generator().manual_seed(0))]
    drawn = invert(logits.expand(len(u), -1), shuffled, temperature)
    counts = torch.bincount(drawn, minlength=6).double()
    expected = (logits / temperature).softmax(-1).double() * len(u)
    # Evenly spaced uniforms leave a rounding of one count on each side of a token's interval.
    assert (counts - expected).abs().max() <= 2
    assert counts[-1] == 0


def test_sampled_first_tokens_follow_the_model(model: PreTrainedModel) -> None:
    prompt, n = prompts()[0], 4000
    keys = np.arange(n, dtype=np.uint64)
    out = complete(model, [prompt], n, np.array([1]), set(), picker(keys, 5.0))
    with torch.no_grad():
        p = (model(torch.tensor([prompt])).logits[0, -1] / 5.0).softmax(-1).double().numpy()
    common = np.argsort(-p)[:20]
    counts = np.bincount([row[0] for row in out], minlength=len(p))
    observed = np.append(counts[common], n - counts[common].sum())
    expected = np.append(p[common], 1 - p[common].sum()) * n
    assert chisquare(observed, expected).pvalue > 1e-3


def test_low_temperature_is_greedy_even_at_the_limit() -> None:
    logits = torch.randn(50, 30, generator=torch.Generator().manual_seed(0)) * 10
    u = torch.linspace(0.001, 0.999, 50, dtype=torch.float64)
    for temperature in (1e-3, 1e-30, 1e-45):
        assert torch.equal(invert(logits, u, temperature), logits.argmax(-1))


def test_the_ends_of_the_unit_interval_stay_inside_the_vocabulary() -> None:
    logits = torch.tensor([[-np.inf, 0.0, 0.0, -np.inf]]).repeat(2, 1)
    assert invert(logits, torch.tensor([2.0**-53, 1 - 2.0**-53], dtype=torch.float64), 1.0).tolist() == [1, 2]


def test_greedy_equals_generate_of_transformers(model: PreTrainedModel) -> None:
    ours = complete(model, prompts(), 1, np.full(6, 40), STOPS, pick_first)
    for prompt, completion in zip(prompts(), ours, strict=True):
        theirs = model.generate(
            torch.tensor([prompt]), max_new_tokens=40, do_sample=False, eos_token_id=1, pad_token_id=0
        )[0, len(prompt) :].tolist()
        assert completion == (theirs[: theirs.index(1)] if 1 in theirs else theirs)


def test_rows_stop_by_themselves_and_the_rest_goes_on(model: PreTrainedModel) -> None:
    free = complete(model, prompts(), 1, np.full(6, 20), set(), pick_first)
    stop = free[2][4]
    stopped = complete(model, prompts(), 1, np.full(6, 20), {stop}, pick_first)
    assert stopped == [row[: row.index(stop)] if stop in row else row for row in free]
    limits = np.array([20, 1, 5, 3, 2, 4])
    assert complete(model, prompts(), 1, limits, set(), pick_first) == [
        row[:n] for row, n in zip(free, limits, strict=True)
    ]


def test_completions_do_not_depend_on_the_batch(model: PreTrainedModel) -> None:
    keys = np.arange(18, dtype=np.uint64).reshape(6, 3)
    together = complete(model, prompts(), 3, np.full(6, 15), STOPS, picker(keys.ravel(), 1.0))
    assert len({tuple(row) for row in together[:3]}) == 3
    for i, prompt in enumerate(prompts()):
        alone = complete(model, [prompt], 3, np.array([15]), STOPS, picker(keys[i], 1.0))
        assert alone == together[3 * i : 3 * i + 3]


def test_no_row_is_carried_past_the_last_position_of_the_model() -> None:
    # GPT-2 looks positions up in a table: one too many is an IndexError.
    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=64, n_layer=1, n_head=2)
    model = GPT2LMHeadModel(config).eval()
    ids = [[5] * n for n in (15, 14, *[3] * 20)]
    limits = np.array([16 - len(row) for row in ids])
    out = complete(model, ids, 1, limits, set(), pick_first)
    assert [len(row) for row in out] == limits.tolist()
