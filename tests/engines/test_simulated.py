"""The simulated engine: its truth is what it says, and a function of ids alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit
from scipy.stats import kstest

from tests.truth import true_difficulty
from zpd_ray import schema
from zpd_ray.config import Config
from zpd_ray.engines import ModelRef, load
from zpd_ray.engines.simulated import SimulatedEngine, wrong_answer
from zpd_ray.hashing import item_keys, streams, uniforms

N = 20_000


def items(n: int = N) -> pa.Table:
    return pa.table(
        {
            "item_id": [f"item-{i}" for i in range(n)],
            "messages": pa.array(
                [[{"role": "user", "content": "?"}]] * n, schema.ITEM.field("messages").type
            ),
            "response": pa.array(["#### 42"] * n),
            "answer": pa.array(["42"] * n),
            "choices": pa.nulls(n, pa.list_(pa.string())),
            "response_tokens": pa.array(np.full(n, 20, dtype=np.int32)),
        }
    )


@pytest.fixture
def engine_at(make_config: Callable[..., Config]) -> Callable[..., SimulatedEngine]:
    def make(theta: float = 0.0, stage: int = 0, seed: int = 0) -> SimulatedEngine:
        simulated = {"theta": theta, "gain": 0.5}
        config = make_config(engine={"name": "simulated", "simulated": simulated}, seed=seed)
        engine = load(config, ModelRef("unused", stage=stage))
        assert isinstance(engine, SimulatedEngine)
        return engine

    return make


def test_a_group_is_answered_better_than_its_nlls_say(make_config: Callable[..., Config]) -> None:
    group = pa.array(np.resize(["hard", "plain", "easy"], N))
    table = items().append_column("group", group)
    engines = [
        load(make_config(engine={"name": "simulated", "simulated": {"groups": ahead}}), ModelRef("unused"))
        for ahead in ({}, {"hard": -1.0, "easy": 1.0})
    ]
    np.testing.assert_array_equal(*(engine.score(table).nll for engine in engines))
    b, ahead = true_difficulty(table["item_id"]), np.resize([-1.0, 0.0, 1.0], N)
    for engine, added in zip(engines, (0.0, ahead), strict=True):
        right = np.array([text == "42" for (text,) in engine.generate(table, 1, 0).texts])
        p = expit(added - b)
        for of in (-1.0, 0.0, 1.0):
            rows = ahead == of
            assert abs((right - p)[rows].mean()) < 4 * np.sqrt(np.mean(p * (1 - p)) / rows.sum())


def test_difficulties_are_standard_normal_and_uniforms_uniform() -> None:
    ids = items()["item_id"]
    assert kstest(true_difficulty(ids), "norm").pvalue > 1e-3
    keys = item_keys(ids)
    draws = [uniforms(streams(keys, 0, 0, 1)), uniforms(streams(keys, 0, 0, 0)), uniforms(keys, 1)]
    assert all(kstest(draw, "uniform").pvalue > 1e-3 for draw in draws)
    assert np.abs(np.corrcoef([*draws, true_difficulty(ids)]) - np.eye(4)).max() < 4 / np.sqrt(N)


@pytest.mark.parametrize(("theta", "stage"), [(-2.0, 0), (0.0, 0), (0.0, 3), (1.5, 1)])
def test_share_of_right_responses_is_that_of_the_rasch_model(
    engine_at: Callable[..., SimulatedEngine], theta: float, stage: int
) -> None:
    engine, table = engine_at(theta, stage), items()
    p = expit(theta + 0.5 * stage - true_difficulty(table["item_id"]))
    scores = engine.score(table)
    matched = scores.n_greedy == scores.n_tokens
    # The sum of Bernoulli variables with these p has this standard deviation.
    assert abs(matched.sum() - p.sum()) < 4 * np.sqrt((p * (1 - p)).sum())
    answers = engine.generate(table, 1, stage).texts
    assert [row == ["42"] for row in answers] == matched.tolist()


def test_nll_rises_with_difficulty_and_falls_with_ability(engine_at: Callable[..., SimulatedEngine]) -> None:
    table = items()
    weak, strong = engine_at(0.0).score(table).nll, engine_at(1.0).score(table).nll
    np.testing.assert_allclose(np.log(weak) - np.log(strong), 0.5, atol=1e-5)
    slope, at_zero = np.polyfit(true_difficulty(table["item_id"]), np.log(weak), 1)
    assert (slope, at_zero) == (pytest.approx(0.5, abs=0.01), pytest.approx(-0.5, abs=0.01))


def test_results_follow_ids_whatever_the_order_and_the_batch(
    engine_at: Callable[..., SimulatedEngine],
) -> None:
    engine, table = engine_at(), items(500)
    some = np.random.default_rng(0).permutation(500)[:100]
    whole, part = engine.score(table), engine.score(table.take(some))
    np.testing.assert_array_equal(whole.nll[some], part.nll)
    np.testing.assert_array_equal(whole.n_greedy[some], part.n_greedy)
    completions = engine.generate(table, 3, 0).texts
    assert [completions[i] for i in some] == engine.generate(table.take(some), 3, 0).texts


def test_seed_stage_and_rollout_each_change_the_responses(engine_at: Callable[..., SimulatedEngine]) -> None:
    table = items(500)
    first = np.array(engine_at().generate(table, 2, 0).texts)
    assert (first[:, 0] != first[:, 1]).any()
    assert (first != np.array(engine_at(seed=1).generate(table, 2, 0).texts)).any()
    assert (first != np.array(engine_at().generate(table, 2, 1).texts)).any()


@pytest.mark.parametrize(
    ("gold", "choices", "wrong"),
    [
        ("42", None, "43"),
        ("1,239", None, "1,230"),
        ("#### 72", None, "#### 73"),
        ("Paris", None, "not Paris"),
        ("B", ["x", "y", "z"], "C"),
        ("AB", ["x", "y", "z"], "not AB"),
        ("c", ["x", "y", "z"], "A"),
        ("y", ["x", "y", "z"], "x"),
    ],
)
def test_wrong_answers_are_of_the_kind_of_the_right_one(
    gold: str, choices: list[str] | None, wrong: str
) -> None:
    assert wrong_answer(gold, choices) == wrong


def test_items_without_tokens_are_errors(engine_at: Callable[..., SimulatedEngine]) -> None:
    table = items(3).set_column(5, "response_tokens", pa.array([5, 0, None], pa.int32()))
    scores = engine_at().score(table)
    assert scores.error == [None, "the response has no tokens", "the response has no tokens"]
    assert np.isnan(scores.nll).tolist() == [False, True, True]
