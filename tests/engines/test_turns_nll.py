"""NLLs over every answer of a conversation, by the transformers engine and by the trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.engines.chat_templates import tokenizer_of
from tests.engines.test_turns import ASKED, CALL, FOUR, PLAIN, SYSTEM, TOOLS, learnt
from zpd_ray import schema
from zpd_ray.config import Config
from zpd_ray.engines import tokens
from zpd_ray.engines.transformers import TransformersEngine
from zpd_ray.errors import ZpdError
from zpd_ray.measures import load
from zpd_ray.readers.lengths import longest_prompt, with_lengths
from zpd_ray.training.step import Workers, accumulate, item_nlls, micro_batches, new_learner

MakeEngine = Callable[..., TransformersEngine]
ALL = {"train": {"method": "none", "turns": "all"}}
ROWS = [
    {"item_id": "plain", "messages": PLAIN, "response": "Bye, and thank you for all the clips."},
    {"item_id": "tools", "messages": [*SYSTEM, *FOUR], "response": "You are welcome.", "tools": TOOLS},
    {"item_id": "call", "messages": ASKED, "response": "", "response_more": CALL, "tools": TOOLS},
    {"item_id": "one", "messages": ASKED, "response": "It is 3."},
    {"item_id": "bad", "messages": ASKED, "response": "no<|im_end|>way"},
    {"item_id": "two", "messages": [*PLAIN, *PLAIN[1:]], "response": "Why not?"},
]
GOOD = [0, 1, 2, 3, 5]


def conversations() -> pa.Table:
    return pa.Table.from_pylist(ROWS, schema=schema.ITEM)


def chat_model(directory: Path) -> Path:
    """A tiny Llama with Qwen 2.5's chat template."""
    path = tiny.build_model(directory, max_length=1024)
    tokenizer_of("qwen2_5").save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_model(tmp_path_factory.mktemp("chat"))


def plain_nlls(path: Path, items: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """NLL (nats per token) and tokens of each item: a forward pass each, labels from its answers as text."""
    net, tokenizer = AutoModelForCausalLM.from_pretrained(path).eval(), tokenizer_of("qwen2_5")
    nlls, counts = [], []
    for row in items.to_pylist():
        one = [row["messages"], row["response"], row["tools"], row["response_more"]]
        encoded = tokens.encode(tokenizer, [one[0]], [one[1]], "\n", [one[3]], [one[2]])
        ids, at, places = encoded.prompt_ids[0] + encoded.response_ids[0], 0, []
        for answer in learnt(tokenizer, *one):  # found again in the ids, from left to right
            wanted = tokenizer(answer, add_special_tokens=False).input_ids
            at = next(i for i in range(at, len(ids)) if ids[i : i + len(wanted)] == wanted)
            places += range(at, at + len(wanted))
            at += len(wanted)
        with torch.no_grad():
            logp = net(torch.tensor([ids])).logits[0].log_softmax(-1)
        nlls.append(-np.mean([logp[i - 1, ids[i]].item() for i in places]))
        counts.append(len(places))
    return np.array(nlls), np.array(counts)


def test_nll_is_that_of_a_plain_forward_pass_over_every_answer(model: Path, make_engine: MakeEngine) -> None:
    items = conversations()
    scores = make_engine(model, engine={"batch_tokens": 400}, **ALL).score(items)
    nlls, counts = plain_nlls(model, items.take(GOOD))
    np.testing.assert_allclose(scores.nll[GOOD], nlls, atol=1e-4)
    np.testing.assert_array_equal(scores.n_tokens[GOOD], counts)
    assert [why is None for why in scores.error] == [True, True, True, True, False, True]
    last = make_engine(model).score(items)
    one_answer = [2, 3]
    np.testing.assert_allclose(scores.nll[one_answer], last.nll[one_answer], atol=1e-6)
    assert (scores.n_tokens[[0, 1, 5]] > last.n_tokens[[0, 1, 5]]).all()
    order = [5, 3, 1, 0, 2, 4]
    again = make_engine(model, engine={"batch_tokens": 400}, **ALL).score(items.take(order))
    assert again.nll.tobytes() == scores.nll[order].tobytes()


def test_completions_are_of_the_last_turn_whatever_is_trained_on(
    model: Path, make_engine: MakeEngine
) -> None:
    items, measure = conversations().take(GOOD), {"max_new_tokens": 8}
    every, last = (make_engine(model, measure=measure, **how).generate(items, 1, 0) for how in (ALL, {}))
    assert every == last
    assert every.error == [None] * len(GOOD)


def test_the_trainer_learns_what_is_measured(
    model: Path, make_engine: MakeEngine, make_config: Callable[..., Config]
) -> None:
    items, config = conversations().take(GOOD), make_config(model, train={"method": "full", "turns": "all"})
    scores = make_engine(model, **ALL).score(items)
    ids = tokens.encode_items(tokenizer_of("qwen2_5"), items, config)
    learner = new_learner(config, AutoModelForCausalLM.from_pretrained(model), Workers())
    nlls = item_nlls(learner, ids.prompt_ids, ids.response_ids, ids.trained)
    np.testing.assert_allclose(nlls, scores.nll, atol=1e-4)
    for packing in (False, True):
        batches = micro_batches(ids.prompt_ids, ids.response_ids, 2, packing, ids.trained)
        total, count = accumulate(learner, batches)
        assert count == scores.n_tokens.sum()
        assert total == pytest.approx(float((scores.nll * scores.n_tokens).sum()), rel=1e-5)


def test_what_is_read_and_what_is_learnt_is_counted(
    model: Path, make_engine: MakeEngine, make_config: Callable[..., Config]
) -> None:
    items = conversations().drop_columns(["prompt_tokens", "response_tokens"])
    every, bad = with_lengths(make_config(model, **ALL), items)
    last, _ = with_lengths(make_config(model), items)
    assert bad["detail"].to_pylist() == [
        "the response holds an end-of-text token before its end; generation would stop there"
    ]
    assert every["response_tokens"].to_pylist() == make_engine(model, **ALL).score(every).n_tokens.tolist()
    whole = [pc.add(table["prompt_tokens"], table["response_tokens"]).to_pylist() for table in (every, last)]
    assert whole[0] == whole[1]
    # vLLM reserves room for it: the prompt of the last turn, whatever is trained on.
    assert longest_prompt(make_config(model, **ALL), every) >= longest_prompt(make_config(model), last)
    assert max(every["prompt_tokens"].to_pylist()) < longest_prompt(make_config(model), last)


def test_measures_that_know_the_last_turn_alone_are_refused(make_config: Callable[..., Config]) -> None:
    every = make_config(train={"turns": "all"}, select={"budget": {"items": 1}, "proxy": "p"})
    for name in ("alone", "proxy", "in_context"):
        with pytest.raises(ZpdError, match=f"the measure '{name}', which the method"):
            load(name, every)
        load(name, make_config(select={"budget": {"items": 1}, "proxy": "p"}))
    for name in ("answers", "reference", "judge"):
        load(name, every)


def test_own_responses_and_all_turns_do_not_go_together(make_config: Callable[..., Config]) -> None:
    with pytest.raises(ValueError, match=r"train\.turns = 'all' trains on the turns before it"):
        make_config(train={"turns": "all", "target": "own"})
