"""What items are worth as demonstrations, against transformers alone, one prompt at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import tiny
from zpd_ray import measures, schema
from zpd_ray.config import Config
from zpd_ray.engines import ModelRef
from zpd_ray.engines.demonstrations import find_spans
from zpd_ray.engines.transformers import TransformersEngine
from zpd_ray.errors import ZpdError
from zpd_ray.hashing import item_keys, streams
from zpd_ray.measures.in_context import PLACES, contexts

Pair = tuple[str, str]
NEW = 6  # tokens of an answer
SYSTEM = "Reckon."
WORDS = tiny.TEXTS[0].split()


class PlainInContext:
    """A model of transformers that tells its attention, and what it makes of prompts written out by hand."""

    def __init__(self, path: Path, chat: bool = False) -> None:
        how = {"dtype": "float32", "attn_implementation": "eager"}
        self.model = AutoModelForCausalLM.from_pretrained(path, **how).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.chat = chat
        bos = self.tokenizer.bos_token_id
        self.lead = [] if chat or bos is None else [bos]

    def pieces(self, before: list[Pair], question: str) -> list[str]:
        """The prompt in pieces: what comes first, each demonstration and what is between, the question."""
        if not self.chat:
            return ["", *(part for x, y in before for part in (f"{x}\n\n{y}", "\n\n")), f"{question}\n"]
        found, lead = [], f"<|start|>system\n{SYSTEM}<|end|>\n<|start|>user\n"
        for x, y in before:
            found += [lead, f"{x}<|end|>\n<|start|>assistant\n{y}"]
            lead = "<|end|>\n<|start|>user\n"
        return [*found, f"{lead}{question}<|end|>\n<|start|>assistant\n"]

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def prompt(self, before: list[Pair], question: str) -> list[int]:
        return self.lead + self.ids("".join(self.pieces(before, question)))

    def shares(self, before: list[Pair], question: str) -> list[float]:
        """Of the attention that the question pays to the demonstrations, per pair of tokens."""
        pieces = self.pieces(before, question)
        ends = np.cumsum([0, *map(len, pieces)])
        text = "".join(pieces)
        offsets = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
        with torch.no_grad():
            out = self.model(torch.tensor([self.prompt(before, question)]), output_attentions=True)
        attention = out.attentions[round(0.4 * len(out.attentions))][0].sum(0)
        attention = attention[len(self.lead) :, len(self.lead) :]  # offsets are those of the text
        last = ends[2 * len(before)]
        asking = [t for t, (start, _) in enumerate(offsets) if start >= last]
        weight = []
        for i in range(len(before)):
            a, b = ends[2 * i + 1], ends[2 * i + 2]
            inside = [t for t, (start, end) in enumerate(offsets) if start < b and end > a]
            weight.append(float(attention[asking][:, inside].double().mean()))
        return [each / sum(weight) for each in weight]

    def nll(self, before: list[Pair], question: str, response: str) -> float:
        ask = self.prompt(before, question)
        end = "<|end|>" if self.chat else self.tokenizer.eos_token
        reply = [*self.ids(response), self.tokenizer.convert_tokens_to_ids(end)]
        with torch.no_grad():
            labels = torch.tensor([[-100] * len(ask) + reply])
            return float(self.model(torch.tensor([ask + reply]), labels=labels).loss)

    def answer(self, before: list[Pair], question: str) -> str:
        ask = torch.tensor([self.prompt(before, question)])
        with torch.no_grad():
            out = self.model.generate(ask, max_new_tokens=NEW, do_sample=False)
        return self.tokenizer.decode(out[0, ask.shape[1] :], skip_special_tokens=True)


def plain_utilities(
    model: PlainInContext,
    pairs: list[Pair],
    right: Callable[[list[Pair], int], float],
    demonstrations: int,
    queries: int,
) -> list[float]:
    """Of items whose ids are their places; right: how well the model answers an item after some pairs."""
    n = len(pairs)
    keys = streams(item_keys(pa.array([f"{i}" for i in range(n)])), 0, 0, PLACES).tolist()
    order = sorted(range(n), key=keys.__getitem__)
    utility: list[float] = [math.nan] * n
    for first in reversed(range(0, n, demonstrations)):
        shown = [order[(first + i) % n] for i in range(demonstrations)]
        asked = [order[(first + demonstrations + j) % n] for j in range(queries)]
        before = [pairs[i] for i in shown]
        each = [(right(before, j), model.shares(before, pairs[j][0])) for j in asked]
        for place, i in enumerate(shown):
            utility[i] = sum(f * weight[place] for f, weight in each) / queries
    return utility


def pool(pairs: list[Pair], chat: bool, answers: dict[int, str] | None = None) -> pa.Table:
    system = [{"role": "system", "content": SYSTEM}] if chat else []
    rows = [
        {
            "item_id": f"{i}",
            "messages": [*system, {"role": "user", "content": x}],
            "response": y,
            "response_tokens": 1,
            "answer": (answers or {}).get(i, "-"),
        }
        for i, (x, y) in enumerate(pairs)
    ]
    return pa.Table.from_pylist(rows, schema=schema.ITEM)


def config(path: Path, grader: str, **in_context: Any) -> Config:
    values = {
        "output": "unused",
        "pool": {"path": "unused"},
        "model": {"path": str(path)},
        "engine": {"batch_tokens": 300},  # batches of several prompts, padded
        "measure": {"grader": grader, "max_new_tokens": NEW},
        "select": {"budget": {"items": 1}, "in_context": in_context},
    }
    return Config.model_validate(values)


def measured(config: Config, items: pa.Table) -> pa.Table:
    measure = measures.load("in_context", config)
    engine = TransformersEngine(config, measure.model(ModelRef(config.model.path)))
    return measures.rows_of("in_context", measure, engine, items, 0)


def few(n: int = 17) -> list[Pair]:
    rng = np.random.default_rng(4)
    return [
        (" ".join(rng.choice(WORDS, 3 + i % 5)), f"{' '.join(rng.choice(WORDS, 1 + i % 4))} {i}")
        for i in range(n)
    ]


@pytest.fixture(scope="module", params=["plain text", "begin of text", "chat template"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bool]:
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("model")
    chat = request.param == "chat template"
    path = tiny.build_model(place, layers=3, chat=chat, bos=request.param == "begin of text")
    return attentive(path), chat


def attentive(path: Path) -> Path:
    """The model with attention that is not the same everywhere, as that of random weights nearly is."""
    model = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.mul_(20)
            layer.self_attn.k_proj.weight.mul_(20)
    model.save_pretrained(path)
    return path


def test_utility_is_that_of_a_plain_computation(model: tuple[Path, bool]) -> None:
    path, chat = model
    plain, pairs = PlainInContext(path, chat), few()
    found = measured(config(path, "tests.selection.soft:Soft"), pool(pairs, chat))
    expected = plain_utilities(plain, pairs, lambda before, j: 1 / (1 + plain.nll(before, *pairs[j])), 5, 3)
    assert found["error"].null_count == len(pairs)
    assert np.ptp(expected) > 0.01, "the items do not differ"
    np.testing.assert_allclose(found["utility"].to_numpy(), expected, rtol=1e-4)


def test_completions_are_graded_as_answers_are(model: tuple[Path, bool]) -> None:
    """Gold answers are what the model says in one of an item's contexts: some of its answers are right."""
    path, chat = model
    plain, pairs = PlainInContext(path, chat), few(11)
    said: dict[int, str] = {}

    def right(before: list[Pair], j: int) -> float:
        text = plain.answer(before, pairs[j][0])
        return float(said.setdefault(j, text).split() == text.split())

    plain_utilities(plain, pairs, right, 3, 4)
    expected = plain_utilities(plain, pairs, right, 3, 4)
    table = pool(pairs, chat, said)
    found = measured(config(path, "exact", demonstrations=3, queries=4), table)["utility"].to_numpy()
    assert 0 < np.mean(expected) < 1 / 3
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_an_item_that_is_alone_and_prompts_that_are_too_long_are_told(tmp_path: Path) -> None:
    path = tiny.build_model(tmp_path, layers=1, max_length=64)
    grader = "tests.selection.soft:Soft"
    alone = measured(config(path, grader), pool(few(1), chat=False))
    assert alone.to_pylist() == [
        {"utility": None, "error": "it is alone in its part: nothing to ask after it"}
    ]
    assert measured(config(path, grader), pool(few(2), chat=False))["error"].to_pylist() == [None, None]
    long = measured(config(path, grader), pool([("word " * 40, "yes")] * 4, chat=False))
    assert long["utility"].null_count == 4
    assert all("the model takes 64" in why for why in long["error"].to_pylist())


def test_an_engine_that_tells_no_attention_and_a_layer_that_is_not_there_are_refused(tmp_path: Path) -> None:
    values = config(tmp_path, "exact").model_dump() | {"engine": {"name": "simulated"}}
    with pytest.raises(
        ZpdError, match=r"^the method data_whisperer needs the model's attention, which engine"
    ):
        measures.load("in_context", Config.model_validate(values)).model(ModelRef("x"))
    path = tiny.build_model(tmp_path, layers=1)
    with pytest.raises(ZpdError, match=r"^select.in_context.layer = 1, and the model has 1 layers"):
        measured(config(path, "tests.selection.soft:Soft", layer=1), pool(few(4), chat=False))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 7, 12, 13])
def test_every_item_is_shown_and_none_is_asked_after_itself(n: int) -> None:
    shown, asked = contexts(n, 5, 3)
    if n == 1:
        assert shown.size == asked.size == 0
        return
    assert set(shown.ravel().tolist()) == set(range(n))
    for before, after in zip(shown.tolist(), asked.tolist(), strict=True):
        assert len({*before, *after}) == len(before) + len(after) == min(n, 8)


def test_spans_are_found_in_order_and_what_a_template_changes_is_not_found() -> None:
    text = "a\nsame\nb\nsame\nc"
    assert find_spans(text, [["a", " same "], ["same", "c"]]) == [(0, 6), (9, 15)]
    assert find_spans(text, [["c"], ["same"]]) is None
    assert find_spans(text, [["  "]]) is None
