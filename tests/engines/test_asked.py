"""The NLL of a prompt alone: which tokens it is over, by plain text, and its value, by a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, ByT5Tokenizer

from tests import tiny
from tests.engines.chat_templates import MARKS, tokenizer_of
from tests.engines.test_turns import CALLED, PLAIN, SYSTEM, TOOLS
from tests.engines.test_turns_nll import chat_model
from zpd_ray import schema
from zpd_ray.config import Config
from zpd_ray.engines import ModelRef, load, tokens
from zpd_ray.engines.asked import ONE_TOKEN, OTHERWISE
from zpd_ray.engines.simulated import RIGHT
from zpd_ray.engines.transformers import TransformersEngine
from zpd_ray.errors import ZpdError
from zpd_ray.readers.lengths import NOT_TOKENISED, TOO_LONG, longest_prompt, with_lengths

MakeEngine = Callable[..., TransformersEngine]


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


PROMPTS = [
    user("How many clips did Natalia sell?"),
    user("naïve café, 数学, 🙂?"),
    user("  Weng earns $12 an hour.\n\nAnd then?\n"),
    [*SYSTEM, *PLAIN],
    user("fox " * 60),
]


def alone(prompts: list[list[dict[str, Any]]], tools: str | None = None) -> pa.Table:
    """Items without responses."""
    rows = [{"item_id": f"p{i}", "messages": turns, "tools": tools} for i, turns in enumerate(prompts)]
    return pa.Table.from_pylist(rows, schema=schema.ITEM)


def places(tokenizer: Any, ids: list[int], turns: list[dict[str, Any]]) -> list[int]:
    """Tokens that hold a byte of what the user says: in byte-level BPE a character of a token is a byte."""
    special = tokenizer.added_tokens_decoder
    sizes = [
        len(special[i].content.encode()) if i in special else len(tokenizer.convert_ids_to_tokens(i))
        for i in ids
    ]
    ends = np.cumsum(sizes)
    whole = tokenizer.decode(ids, clean_up_tokenization_spaces=False).encode()
    assert len(whole) == ends[-1]
    found, at = set[int](), 0
    for turn in turns:
        said = turn["content"].encode()
        at = whole.index(said, at) + len(said)
        if turn["role"] == "user":
            found |= {i for i in range(1, len(ids)) if ends[i] > at - len(said) and ends[i] - sizes[i] < at}
    return sorted(found)


def plain_loop(path: Path, items: pa.Table) -> tuple[list[float], list[int]]:
    """NLL (nats per token) and tokens of each prompt: a forward pass for each token."""
    net, tokenizer = AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)
    nlls, counts = [], []
    for row in items.to_pylist():
        ((ids,), error) = tokens.encode_prompts(tokenizer, [row["messages"]], "\n", [row["tools"]])
        assert error == [None]
        said, total = places(tokenizer, ids, row["messages"]), 0.0
        for i in said:
            with torch.no_grad():
                total -= net(torch.tensor([ids[:i]])).logits[0, -1].log_softmax(-1)[ids[i]].item()
        nlls.append(total / len(said))
        counts.append(len(said))
    return nlls, counts


@pytest.mark.parametrize("kind", ["plain", "bos", "chat", "qwen2_5"])
def test_the_nll_of_a_prompt_is_that_of_a_plain_loop(
    kind: str, tmp_path: Path, make_engine: MakeEngine
) -> None:
    if kind == "qwen2_5":
        path, items = chat_model(tmp_path / "model"), alone([*PROMPTS, *[[*SYSTEM, *PLAIN]] * 2], TOOLS)
    else:
        path = tiny.build_model(tmp_path / "model", chat=kind == "chat", bos=kind == "bos")
        items = alone(PROMPTS)
    scores = make_engine(path, engine={"batch_tokens": 300}).score(items)
    nlls, counts = plain_loop(path, items)
    assert scores.error == [None] * items.num_rows
    np.testing.assert_allclose(scores.nll, nlls, atol=1e-4)
    assert scores.n_tokens.tolist() == counts
    assert np.ptp(scores.nll[: len(PROMPTS)]) > 0.01
    order = np.arange(items.num_rows)[::-1]
    again = make_engine(path, engine={"batch_tokens": 300}).score(items.take(order))
    assert again.nll.tobytes() == scores.nll[order].tobytes()


def learnt(tokenizer: Any, turns: list[dict[str, Any]]) -> str:
    """The text of the tokens that count."""
    encoded = tokens.encode_asked(tokenizer, [turns], "\n")
    assert encoded.error == [None]
    assert encoded.trained is not None
    whole = encoded.prompt_ids[0] + encoded.response_ids[0]
    assert ([whole], [None]) == tokens.encode_prompts(tokenizer, [turns], "\n")
    kept = [i for i, counts in zip(encoded.response_ids[0], encoded.trained[0], strict=True) if counts]
    return str(tokenizer.decode(kept, clean_up_tokenization_spaces=False))


@pytest.mark.parametrize("model", MARKS)
@settings(max_examples=25)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip))
def test_what_counts_is_what_the_user_says_and_nothing_of_the_template(model: str, text: str) -> None:
    """Also where the template says the same: "user", "a", "assistant"."""
    tokenizer = tokenizer_of(model)
    for said in (text, "user", "a", "assistant", "You are a helpful", "\n\n2 + 3?\n"):
        assert learnt(tokenizer, user(said)).strip() == said.strip()


@pytest.mark.parametrize("model", ["llama3_1", "qwen2_5", "qwen3", "smollm2", "mistral"])
def test_of_several_turns_the_users_count(model: str) -> None:
    turns = [*SYSTEM, *user("one?"), {"role": "assistant", "content": "two."}, *user("three?")]
    assert learnt(tokenizer_of(model), turns).replace(" ", "") == "one?three?"


def test_what_has_no_nll_says_so(tmp_path: Path, make_engine: MakeEngine) -> None:
    prompts = [user("?"), user("? ?"), CALLED, user("zpdmark0x or so")]
    scores = make_engine(tiny.build_model(tmp_path / "plain")).score(alone(prompts))
    assert scores.error == [ONE_TOKEN, None, tokens.NO_TEMPLATE, None]
    assert np.isnan(scores.nll[[0, 2]]).all()
    with_bos = make_engine(tiny.build_model(tmp_path / "bos", bos=True)).score(alone(prompts[:1]))
    assert with_bos.error == [None]
    assert with_bos.n_tokens.tolist() == [1]


def test_a_template_that_writes_something_else_is_found_out() -> None:
    tokenizer = tiny.build_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] | replace('hm', 'h') }}{% endfor %}"
    encoded = tokens.encode_asked(tokenizer, [user("hm, how many?"), user("how many?")], "\n")
    assert encoded.error == [OTHERWISE, None]
    assert encoded.prompt_ids[0] == encoded.response_ids[0] == []
    tokenizer.chat_template = "{{ messages[-1]['content'] }}"
    turns = [*user("one"), {"role": "assistant", "content": "two"}, *user("three")]
    assert tokens.encode_asked(tokenizer, [turns], "\n").error == [OTHERWISE]


def test_a_tokenizer_that_tells_no_characters_is_refused(make_config: Callable[..., Config]) -> None:
    prompts = {"path": "p", "reference": "prompt"}
    for sections in ({"pool": prompts}, {"evaluation": prompts}):
        with pytest.raises(
            ZpdError, match=r"^reference = 'prompt' needs .* ByT5Tokenizer in m does not tell"
        ):
            tokens.check_turns(make_config(**sections), ByT5Tokenizer(), "m")
    tokens.check_turns(make_config(), ByT5Tokenizer(), "m")


def test_lengths_are_of_what_generation_is_prompted_with(
    tmp_path: Path, make_config: Callable[..., Config], make_engine: MakeEngine
) -> None:
    path = tiny.build_model(tmp_path / "model", max_length=64, chat=True)
    room = 64 - len(tokens.encode_prompts(tiny.build_tokenizer(chat=True), [user("?")], "\n")[0][0])
    items = alone([user("?" * (1 + room - 1)), user("?" * (1 + room)), user("?"), CALLED])
    config = make_config(path)
    kept, bad = with_lengths(config, items.drop_columns(["prompt_tokens", "response_tokens"]))
    assert kept["prompt_tokens"].to_pylist()[0] == 63
    assert kept["response_tokens"].to_pylist() == [0, 0]
    assert longest_prompt(config, kept) == 63
    assert bad["reason"].to_pylist() == [TOO_LONG, NOT_TOKENISED]
    assert bad["detail"][0].as_py() == "64 tokens, the model takes 64 and has to have room for a response"
    assert make_engine(path).generate(kept, 1, 0).error == [None, None]
    assert make_engine(path).score(kept).error == [None, None]


def test_a_simulated_model_answers_prompts_alone(make_config: Callable[..., Config]) -> None:
    engine = load(make_config(engine={"name": "simulated"}), ModelRef("unused"))
    items = alone([user(f"{i}?") for i in range(500)])
    scores, said = engine.score(items), engine.generate(items, 2, 0)
    assert scores.error == [None] * 500
    assert {text for texts in said.texts for text in texts} == {RIGHT, f"not {RIGHT}"}
    assert 0.3 < np.mean([text == RIGHT for texts in said.texts for text in texts]) < 0.7
