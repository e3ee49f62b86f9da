"""Methods of the literature against what their papers say, computed plainly: one sample at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import tiny
from zpd_ray import measures, schema
from zpd_ray.config import Budget, Config, SelectConfig
from zpd_ray.engines import ModelRef
from zpd_ray.engines.transformers import TransformersEngine
from zpd_ray.errors import ZpdError
from zpd_ray.selection import Candidates, load

N = 20
THETA = 0.3
WORDS = tiny.TEXTS[0].split()


def pairs() -> list[tuple[str, str]]:
    """Prompts and responses of 1 to 12 words, no two alike."""
    rng = np.random.default_rng(3)
    return [
        (" ".join(rng.choice(WORDS, 3 + i % 5)), f"{' '.join(rng.choice(WORDS, 1 + i % 12))} {i}")
        for i in range(N)
    ]


def table() -> pa.Table:
    rows = [
        {"item_id": f"{i}", "messages": [{"role": "user", "content": x}], "response": y, "response_tokens": 1}
        for i, (x, y) in enumerate(pairs())
    ]
    return pa.Table.from_pylist(rows, schema=schema.ITEM)


class Plain:
    """A model of transformers and its tokenizer: the summed NLL of a response, and its tokens."""

    def __init__(self, path: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype="float32").eval()
        self.tokenizer = AutoTokenizer.from_pretrained(path)

    def nll(self, prompt: str | None, response: str) -> tuple[float, int]:
        ask = [self.tokenizer.eos_token_id] if prompt is None else self.tokenizer(f"{prompt}\n").input_ids
        reply = [*self.tokenizer(response).input_ids, self.tokenizer.eos_token_id]
        ids = torch.tensor([ask + reply])
        with torch.no_grad():
            loss = self.model(ids, labels=torch.tensor([[-100] * len(ask) + reply])).loss
        return float(loss) * len(reply), len(reply)

    def mean(self, prompt: str | None, response: str) -> float:
        total, tokens = self.nll(prompt, response)
        return total / tokens


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run's model, a narrower proxy, and a reference with another tokenizer."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp
    return {
        "model": tiny.build_model(place("model"), layers=1),
        "proxy": tiny.build_model(place("proxy"), layers=1, heads=1, seed=1),
        "reference": tiny.build_model(place("reference"), layers=1, seed=2, texts=("to and fro",), vocab=300),
    }


@pytest.fixture(scope="module")
def items(paths: dict[str, Path]) -> Candidates:
    """All measures, taken as a scoring actor takes them."""
    config = Config.model_validate(
        {
            "output": "unused",
            "pool": {"path": "unused"},
            "model": {"path": str(paths["model"])},
            "engine": {"batch_tokens": 200},  # batches of several items, padded
            "select": {
                "budget": {"items": 1},
                "proxy": str(paths["proxy"]),
                "reference_model": str(paths["reference"]),
                "judge": {"model": str(paths["proxy"])},
            },
        }
    )
    measured = {}
    for name in measures.MEASURES:
        measure = measures.load(name, config)
        engine = TransformersEngine(config, measure.model(ModelRef(config.model.path)))
        measured[name] = measures.rows_of(name, measure, engine, table(), 0)
    b = np.random.default_rng(0).normal(size=N)
    before = measured["proxy"]["nll_proxy"].to_numpy().astype(np.float64)  # as if it had been the model
    return Candidates(THETA, np.arange(N, dtype=np.uint64), b, 0 * b, b, 0 * b, 0 * b, measured, 5.0, before)


@pytest.fixture(scope="module")
def plain(paths: dict[str, Path]) -> dict[str, Plain]:
    return {name: Plain(path) for name, path in paths.items()}


def config(**values: Any) -> SelectConfig:
    return SelectConfig(budget=Budget(items=1), **values)


Formula = Callable[[dict[str, Plain], str, str], float]


def ifd(models: dict[str, Plain], x: str, y: str) -> float:
    return models["model"].mean(x, y) / models["model"].mean(None, y)


def superfiltering(models: dict[str, Plain], x: str, y: str) -> float:
    return math.exp(models["proxy"].mean(x, y)) / math.exp(models["proxy"].mean(None, y))


def rho(models: dict[str, Plain], x: str, y: str) -> float:
    (ours, tokens), (theirs, _) = models["model"].nll(x, y), models["reference"].nll(x, y)
    return (ours - theirs) / tokens


FORMULAS: dict[str, Formula] = {
    "ppl_high": lambda models, x, y: math.exp(models["model"].mean(x, y)),
    "ppl_low": lambda models, x, y: -math.exp(models["model"].mean(x, y)),
    "ppl_middle": lambda models, x, y: -abs(math.log(models["model"].mean(x, y) / 5.0)),
    "ifd": ifd,
    "superfiltering": superfiltering,
    "rho": rho,
    "delta_loss": lambda models, x, y: models["proxy"].mean(x, y) - models["model"].mean(x, y),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_the_score_is_that_of_a_plain_computation(
    name: str, items: Candidates, plain: dict[str, Plain]
) -> None:
    expected = np.array([FORMULAS[name](plain, x, y) for x, y in pairs()])
    limit = {"ifd": np.nextafter(1, 2), "superfiltering": 1.0}.get(name, np.inf)
    kept = expected < limit
    assert kept.sum() >= 5, "too few are left to compare"
    assert len(set(expected.round(3))) > N // 2, "the items do not differ"
    score = load(name).score(items, config())
    np.testing.assert_array_equal(np.isnan(score), ~kept)
    np.testing.assert_allclose(score[kept], expected[kept], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("low", "high"), [(None, 0.0), (-0.5, 0.7), (None, 1.0)])
def test_the_window_holds_what_lies_between_its_ends(
    items: Candidates, low: float | None, high: float
) -> None:
    score = load("difficulty_window").score(items, config(window_low=low, window_high=high))
    for b, found in zip(items.b, score, strict=True):
        inside = b <= THETA + high and (low is None or THETA + low <= b)
        assert found == 1.0 if inside else math.isnan(found)


@pytest.mark.parametrize("target_p", [0.5, 0.8])
def test_the_target_is_where_so_many_answers_are_right(items: Candidates, target_p: float) -> None:
    score = load("target_difficulty").score(items, config(target_p=target_p))
    target = next(
        t / 1e4 for t in range(50_000, -50_000, -1) if 1 / (1 + math.exp(t / 1e4 - THETA)) >= target_p
    )
    np.testing.assert_allclose(score, [-abs(b - target) for b in items.b], atol=2e-4)


def made(b: list[float] | None = None, median: float = 1.0, **measured: dict[str, list[Any]]) -> Candidates:
    """Items with these numbers; the rest plays no part."""
    n = len(b) if b else len(next(iter(next(iter(measured.values())).values())))
    zeros = np.zeros(n)
    tables = {name: pa.table(columns) for name, columns in measured.items()}
    at = np.array(b or zeros)
    return Candidates(0.0, np.arange(n, dtype=np.uint64), at, zeros, zeros, zeros, zeros, tables, median)


def scores(name: str, items: Candidates, **select: Any) -> list[float | None]:
    """None: not to be selected."""
    return [None if math.isnan(score) else score for score in load(name).score(items, config(**select))]


def test_at_the_limit_ifd_keeps_a_ratio_of_one_and_superfiltering_does_not() -> None:
    ours = {"answers": {"nll": [1.0, 2.0, 3.0]}, "alone": {"nll_alone": [2.0, 2.0, 2.0]}}
    assert scores("ifd", made(**ours)) == [0.5, 1.0, None]
    proxy = {"nll_proxy": [1.0, 2.0, 3.0], "nll_proxy_alone": [2.0, 2.0, 2.0]}
    assert scores("superfiltering", made(proxy=proxy)) == [pytest.approx(math.exp(-1)), None, None]


def test_both_ends_of_the_window_belong_to_it() -> None:
    ends = {"window_low": -1.0, "window_high": 0.5}
    items = made([-1.0, 0.5, np.nextafter(-1.0, -2), np.nextafter(0.5, 1)])
    assert scores("difficulty_window", items, **ends) == [1.0, 1.0, None, None]


def test_the_middle_is_as_far_from_half_the_median_as_from_twice_it() -> None:
    got = scores("ppl_middle", made(median=3.0, answers={"nll": [3.0, 1.5, 6.0]}))
    assert got == [0.0, pytest.approx(-math.log(2)), pytest.approx(-math.log(2))]


def test_what_could_not_be_measured_or_divided_is_not_selected() -> None:
    nll = {"nll": [None, 1.0, 0.0, 1.0, 0.0], "n_tokens": [0, 2, 2, 2, 2]}
    alone = {"nll_alone": [1.0, None, 0.0, 0.0, 1.0]}
    assert scores("ifd", made(answers=nll, alone=alone)) == [None, None, None, None, 0.0]
    theirs = {"nll_reference": [1.0, None, 1.0, 0.5, 0.0], "n_tokens_reference": [2, 0, 2, 4, 2]}
    assert scores("rho", made(answers=nll, reference=theirs)) == [None, None, -1.0, 0.0, 0.0]
    proxy = {"nll_proxy": [None, 1.0, 0.0], "nll_proxy_alone": [1.0, None, 0.0]}
    assert scores("superfiltering", made(proxy=proxy)) == [None, None, None]
    utility = {"utility": [None, 0.0, 0.25]}
    assert scores("data_whisperer", made(in_context=utility)) == [None, 0.0, 0.25]
    assert scores("judge", made(judge={"rating": [None, 0.0, 4.5]})) == [None, 0.0, 4.5]
    few = made(answers={"nll": [None, 0.0]})
    assert scores("delta_loss", few) == [0.0, 0.0]  # of stage 0, where nothing has moved
    moved = replace(made(answers={"nll": [None, 1.0, 2.0]}), nll_before=np.array([1.0, np.nan, 1.5]))
    assert scores("delta_loss", moved) == [None, None, -0.5]
    grouped = replace(moved, fall_of_group=np.array([0.25, 0.25, -1.0]))
    assert scores("delta_loss", grouped) == [None, None, -1.0]
    assert scores("ppl_high", few) == [None, 1.0]
    assert scores("ppl_low", few) == [None, -1.0]
    assert scores("ppl_middle", few) == [None, -math.inf]
    assert scores("zpd_static", few) == [None, 0.0]  # the score that ``made`` gives


@pytest.mark.parametrize(
    ("measure", "key"), [("proxy", "select.proxy"), ("reference", "select.reference_model")]
)
def test_a_model_that_the_config_does_not_name_is_asked_for(measure: str, key: str) -> None:
    values = {
        "output": "x",
        "pool": {"path": "x"},
        "model": {"path": "x"},
        "select": {"budget": {"items": 1}},
    }
    with pytest.raises(ZpdError, match=f"^{key} is missing, and a selection method in use measures with"):
        measures.load(measure, Config.model_validate(values)).model(ModelRef("x"))
