"""The engine as a whole: items in, NLLs and completions out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests import tiny
from tests.engines.lora import make_adapter
from zpd_ray.config import Config
from zpd_ray.engines import ModelRef, load, tokens
from zpd_ray.engines.transformers import TransformersEngine
from zpd_ray.errors import ZpdError
from zpd_ray.measures import without_prompt

MakeEngine = Callable[..., TransformersEngine]
MakeItems = Callable[..., pa.Table]


def plain_nlls(model: PreTrainedModel | PeftModel, engine: TransformersEngine, items: pa.Table) -> np.ndarray:
    """One item at a time: all logits, log-softmax, mean over the response tokens."""
    separator = engine.config.model.separator
    encoded = tokens.encode(engine.encoder.tokenizer, items["messages"], items["response"], separator)
    nlls = []
    for prompt, response in zip(encoded.prompt_ids, encoded.response_ids, strict=True):
        with torch.no_grad():
            logp = model(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        steps = range(len(prompt) - 1, len(prompt) + len(response) - 1)
        nlls.append(-np.mean([logp[at, token].item() for at, token in zip(steps, response, strict=True)]))
    return np.array(nlls)


@pytest.fixture(scope="module")
def adapter_dir(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(model_dir, tmp_path_factory.mktemp("adapter"), seed=1)


@pytest.mark.parametrize("chat", [False, True])
def test_nll_is_that_of_a_plain_forward_pass(
    chat: bool, tmp_path: Path, make_engine: MakeEngine, make_items: MakeItems
) -> None:
    path, items = tiny.build_model(tmp_path, chat=chat), make_items()
    engine = make_engine(path, engine={"batch_tokens": 150})
    scores = engine.score(items)
    plain = plain_nlls(AutoModelForCausalLM.from_pretrained(path), engine, items)
    np.testing.assert_allclose(scores.nll, plain, atol=1e-4)
    assert scores.error == [None] * items.num_rows
    assert (scores.nll.dtype, scores.n_tokens.dtype, scores.n_greedy.dtype) == (
        np.float32,
        np.int32,
        np.int32,
    )


@pytest.mark.parametrize(("chat", "bos"), [(False, False), (False, True), (True, False)])
def test_without_a_prompt_a_response_follows_the_start_of_a_text(
    chat: bool, bos: bool, tmp_path: Path, make_engine: MakeEngine, make_items: MakeItems
) -> None:
    """As lm-evaluation-harness has it: begin-of-text, or end-of-text where there is no other."""
    path = tiny.build_model(tmp_path, chat=chat, bos=bos)
    tokenizer = tiny.build_tokenizer(chat=chat, bos=bos)
    items = make_items()
    scores = make_engine(path).score(without_prompt(items))
    model = AutoModelForCausalLM.from_pretrained(path)
    start = "<bos>" if bos else "<eos>"
    end = "<|end|>" if chat else "<eos>"
    for i, text in enumerate(items["response"].to_pylist()):
        ids = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.convert_tokens_to_ids(end)]
        whole = torch.tensor([[tokenizer.convert_tokens_to_ids(start), *ids]])
        with torch.no_grad():
            plain = model(input_ids=whole, labels=whole).loss
        assert scores.nll[i] == pytest.approx(float(plain), abs=1e-4)
        assert scores.n_tokens[i] == len(ids)
    assert scores.error == [None] * items.num_rows


def test_nll_on_gsm8k_is_that_of_a_plain_forward_pass(
    gsm8k: list[tuple[str, str]], tmp_path: Path, make_engine: MakeEngine, make_items: MakeItems
) -> None:
    texts = [text for pair in gsm8k for text in pair]
    path = tiny.build_model(tmp_path, texts=texts, vocab=1000, max_length=1024)
    engine, items = make_engine(path), make_items(gsm8k[:500])
    scores = engine.score(items)
    assert scores.error == [None] * 500
    plain = plain_nlls(AutoModelForCausalLM.from_pretrained(path), engine, items)
    assert np.abs(scores.nll - plain).max() <= 1e-4


def test_order_of_rows_changes_no_byte_and_batch_size_no_digit(
    model_dir: Path, make_engine: MakeEngine, make_items: MakeItems
) -> None:
    engine, items = make_engine(model_dir, engine={"batch_tokens": 200}), make_items()
    whole = engine.score(items)
    order = np.random.default_rng(0).permutation(items.num_rows)
    shuffled = engine.score(items.take(order))
    assert shuffled.nll.tobytes() == whole.nll[order].tobytes()
    for budget in (1, 100, 8192):
        other = make_engine(model_dir, engine={"batch_tokens": budget}).score(items)
        np.testing.assert_allclose(other.nll, whole.nll, atol=1e-5)
        np.testing.assert_array_equal(other.n_greedy, whole.n_greedy)


@pytest.mark.parametrize("chat", [False, True])
def test_all_first_choices_if_and_only_if_greedy_decoding_reproduces_the_reference(
    chat: bool, tmp_path: Path, make_engine: MakeEngine, make_items: MakeItems
) -> None:
    # Trained a little on two of the items, so that some references are reproduced, their end included.
    path = tiny.build_model(tmp_path, chat=chat, sharpness=1.0)
    engine = make_engine(path, measure={"max_new_tokens": 200})
    items = make_items()
    encoded = tokens.encode(engine.encoder.tokenizer, items["messages"], items["response"], "\n")
    model = AutoModelForCausalLM.from_pretrained(path)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(120):
        for i in (0, 1, 3):
            ids = torch.tensor([encoded.prompt_ids[i] + encoded.response_ids[i]])
            labels = ids.clone()
            labels[0, : len(encoded.prompt_ids[i])] = -100
            model(ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(path)
    engine = make_engine(path, measure={"max_new_tokens": 200})
    scores, completions = engine.score(items), engine.generate(items, 1, 0).texts
    matched = (scores.n_greedy == scores.n_tokens).tolist()
    reproduced = [row == [text] for row, text in zip(completions, items["response"].to_pylist(), strict=True)]
    assert matched == reproduced
    assert matched[0]
    assert matched[1]
    assert not all(matched)


def test_adapter_is_that_of_peft_and_changes_the_nll(
    model_dir: Path, adapter_dir: Path, make_engine: MakeEngine, make_items: MakeItems
) -> None:
    items = make_items()
    base = make_engine(model_dir).score(items).nll
    engine = make_engine(model_dir, adapter_dir)
    with_adapter = engine.score(items).nll
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_dir), adapter_dir).eval()
    np.testing.assert_allclose(with_adapter, plain_nlls(peft, engine, items), atol=1e-4)
    assert np.abs(with_adapter - base).min() > 1e-3
    assert engine.generate(items, 1, 0).texts != make_engine(model_dir).generate(items, 1, 0).texts


def test_adapter_that_is_not_one_is_refused(
    model_dir: Path, adapter_dir: Path, tmp_path: Path, make_engine: MakeEngine
) -> None:
    with pytest.raises(ZpdError, match=r"no LoRA adapter in .* missing, found nothing"):
        make_engine(model_dir, tmp_path)
    shutil.copy(adapter_dir / "adapter_config.json", tmp_path)
    (tmp_path / "adapter_model.bin").touch()  # a pickle: never read
    with pytest.raises(ZpdError, match=r"adapter_model\.safetensors missing"):
        make_engine(model_dir, tmp_path)


def test_adapter_of_another_base_is_refused(
    adapter_dir: Path, tmp_path: Path, make_engine: MakeEngine
) -> None:
    wider = tiny.build_model(tmp_path, heads=3)
    with pytest.raises(ZpdError, match="does not fit"):
        make_engine(wider, adapter_dir)


def test_weights_in_a_pickle_are_refused(model_dir: Path, tmp_path: Path, make_engine: MakeEngine) -> None:
    shutil.copytree(model_dir, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ZpdError, match="cannot load a causal language model"):
        make_engine(tmp_path)


def test_bad_rows_get_an_error_and_leave_the_others_alone(
    model_dir: Path, make_engine: MakeEngine, make_items: MakeItems
) -> None:
    engine = make_engine(model_dir, model={"max_length": 50})
    items = make_items([("q", "yes"), ("q " * 60, "no"), ("q", ""), ("r", "maybe")])
    scores, alone = engine.score(items), engine.score(make_items([("q", "yes")]))
    assert [error is None for error in scores.error] == [True, False, False, True]
    assert "the model takes 50" in str(scores.error[1])
    assert np.isnan(scores.nll[[1, 2]]).all()
    assert scores.n_tokens[[1, 2]].tolist() == scores.n_greedy[[1, 2]].tolist() == [0, 0]
    np.testing.assert_allclose(scores.nll[0], alone.nll[0], atol=1e-5)
    completions = engine.generate(items, 2, 0)
    assert [len(row) for row in completions.texts] == [2, 0, 2, 2]
    assert [error is None for error in completions.error] == [True, False, True, True]
    assert "the model takes 50" in str(completions.error[1])


def test_no_rows(model_dir: Path, make_engine: MakeEngine, make_items: MakeItems) -> None:
    engine, items = make_engine(model_dir), make_items([])
    assert engine.score(items).nll.shape == (0,)
    assert engine.generate(items, 2, 0).texts == []


def test_non_finite_row_is_an_error_and_a_broken_model_stops(
    model_dir: Path, make_engine: MakeEngine, make_items: MakeItems
) -> None:
    engine, items = make_engine(model_dir), make_items()
    with torch.no_grad():  # a token that only the last item has
        only = tokens.encode(
            engine.encoder.tokenizer, items["messages"], items["response"], "\n"
        ).response_ids
        rare = (set(only[-1]) - {token for row in only[:-1] for token in row}).pop()
        engine.network.model.get_input_embeddings().weight[rare] = torch.nan
    scores = engine.score(items)
    assert scores.error == [None] * 5 + ["non-finite NLL"]
    with torch.no_grad():
        engine.network.model.get_output_embeddings().weight.fill_(torch.nan)
    with pytest.raises(ZpdError, match="all 6 NLLs are non-finite"):
        engine.score(items)


def test_samples_depend_on_seed_stage_item_and_rollout_alone(
    model_dir: Path, make_engine: MakeEngine, make_items: MakeItems
) -> None:
    sections = {"measure": {"max_new_tokens": 12}}
    engine, items = make_engine(model_dir, **sections), make_items()
    first = engine.generate(items, 3, 0).texts
    assert engine.generate(items.take([4, 1]), 3, 0).texts == [first[4], first[1]]
    assert all(len(set(row)) > 1 for row in first)
    assert engine.generate(items, 3, 1).texts != first
    assert make_engine(model_dir, seed=1, **sections).generate(items, 3, 0).texts != first
    assert [row[:2] for row in first] == engine.generate(items, 2, 0).texts


def test_low_temperature_samples_are_greedy(
    model_dir: Path, make_engine: MakeEngine, make_items: MakeItems
) -> None:
    engine = make_engine(model_dir, measure={"max_new_tokens": 12, "temperature": 1e-6})
    items = make_items()
    greedy = engine.generate(items, 1, 0).texts
    assert engine.generate(items, 2, 0).texts == [row * 2 for row in greedy]


def test_a_gpu_that_is_not_there_is_named(make_config: Callable[..., Config], model_dir: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ZpdError, match=r"gpus_per_actor = 1\.0, and torch sees no GPU"):
        load(make_config(model_dir, cluster={"gpus_per_actor": 1}), ModelRef(str(model_dir)))


@pytest.mark.gpu
def test_gpu_agrees_with_cpu(model_dir: Path, make_engine: MakeEngine, make_items: MakeItems) -> None:
    items, gpu = make_items(), {"cluster": {"gpus_per_actor": 1}, "model": {"dtype": "float32"}}
    on_gpu = make_engine(model_dir, **gpu)
    np.testing.assert_allclose(on_gpu.score(items).nll, make_engine(model_dir).score(items).nll, atol=1e-3)
    assert [len(row) for row in on_gpu.generate(items, 2, 0).texts] == [2] * items.num_rows
