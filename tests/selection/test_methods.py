"""Methods: zpd is the matching score, random is uniform and blind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest

from zpd_ray.config import Budget, SelectConfig
from zpd_ray.errors import ZpdError
from zpd_ray.matching import probability, zpd_score
from zpd_ray.selection import METHODS, Candidates, load
from zpd_ray.selection.keys import item_hash

N = 20_000
MEDIAN = 1.0
SELECTIVE = ("ifd", "superfiltering", "difficulty_window")  # they leave items out
IDS = pa.chunked_array([pa.array([f"item-{i}" for i in range(N)])])


def candidates(theta: float = 0.0, seed: int = 0, stage: int = 0) -> Candidates:
    rng = np.random.default_rng(0)
    b, sd, guess = rng.normal(size=N), rng.uniform(0, 1, N), rng.choice([0.0, 0.25], N)
    p = probability(theta, b, guess)
    zpd = zpd_score(theta, b, sd, guess)
    hashes = item_hash(IDS, seed, stage, "select")
    return Candidates(theta, hashes, b, sd, p, guess, zpd, measured(), MEDIAN)


def measured() -> dict[str, pa.Table]:
    """What all measures together say: NLLs within a factor of two of each other."""
    rng = np.random.default_rng(1)

    def table(**columns: np.ndarray) -> pa.Table:
        return pa.table(columns | {"error": pa.nulls(N, pa.string())})

    nll = np.exp(rng.normal(size=N)).astype(np.float32)
    near = [(nll * 2 ** rng.uniform(-1, 1, N)).astype(np.float32) for _ in range(4)]
    tokens = rng.integers(1, 50, N).astype(np.int32)
    return {
        "answers": table(nll=nll, n_tokens=tokens),
        "alone": table(nll_alone=near[0]),
        "in_context": table(utility=rng.uniform(size=N).astype(np.float32)),
        "judge": table(rating=rng.uniform(0, 5, N).astype(np.float32)),
        "proxy": table(nll_proxy=near[1], nll_proxy_alone=near[2]),
        "reference": table(nll_reference=near[3], n_tokens_reference=tokens),
    }


def config(**values: float) -> SelectConfig:
    return SelectConfig(budget=Budget(items=1), **values)


@pytest.mark.parametrize("name", METHODS)
def test_every_item_has_a_score_of_its_own_whatever_the_others(name: str) -> None:
    items, method = candidates(theta=0.7), load(name)
    score = method.score(items, config())
    assert score.shape == (N,)
    assert score.dtype == np.float64
    assert not np.isinf(score).any()
    assert np.isfinite(score).mean() > (0.3 if name in SELECTIVE else 0.999)
    some = np.random.default_rng(1).permutation(N)[:100]
    columns = (getattr(items, column)[some] for column in ("item_hash", "b", "b_sd", "p", "guess", "zpd"))
    tables = {name: table.take(some) for name, table in items.measured.items()}
    assert_array_equal(method.score(Candidates(0.7, *columns, tables, MEDIAN), config()), score[some])


def test_an_unknown_method_gets_the_nearest_and_says_what_else_is_taken() -> None:
    told = r"unknown selection method 'zdp'; expected one of zpd, .*, or .*'package.module:name'.*'zpd'"
    with pytest.raises(ZpdError, match=told):
        load("zdp")


def test_a_draw_takes_items_as_often_as_one_after_the_other_in_proportion_would() -> None:
    """Of a thousand triples with scores 1 : 2 : 5, and so on: who is first, and who is second after it."""
    items, weights = candidates(), np.array([1.0, 2.0, 5.0])
    three = replace(items, zpd=np.resize(weights, N))
    score = load("zpd_sampled").score(three, config())[: N // 3 * 3].reshape(-1, 3)
    order = np.argsort(-score, axis=1)
    share = weights / weights.sum()
    first = np.bincount(order[:, 0], minlength=3) / len(order)
    assert_allclose(first, share, atol=4 * 0.5 / np.sqrt(len(order)))
    after = order[order[:, 0] == 2, 1]
    assert_allclose(np.bincount(after, minlength=3) / len(after), [1 / 3, 2 / 3, 0.0], atol=0.03)


def test_temperature_goes_from_the_top_of_the_score_to_any_item() -> None:
    items, method = candidates(), load("zpd_sampled")
    zpd = load("zpd").score(items, config())

    def chosen(temperature: float) -> float:
        top = np.argsort(-method.score(items, config(temperature=temperature)))[: N // 10]
        return float(zpd[top].mean())

    best, any_item = np.sort(zpd)[-N // 10 :].mean(), zpd.mean()
    assert chosen(1e-3) == pytest.approx(best, rel=1e-3)
    assert best > chosen(0.3) > chosen(1.0) > chosen(3.0) > any_item
    assert chosen(1e3) == pytest.approx(any_item, abs=4 * zpd.std() / np.sqrt(N // 10))


def by_b(items: Candidates, select: SelectConfig) -> np.ndarray:
    return -items.b


def test_a_function_of_the_users_own_is_a_method() -> None:
    method = load("tests.selection.test_methods:by_b")
    assert method.needs == ()
    assert not method.static
    assert_array_equal(method.score(candidates(), config()), -candidates().b)


def test_zpd_is_the_score_expected_by_the_fit() -> None:
    items = candidates(theta=0.4)
    assert_array_equal(load("zpd").score(items, config()), items.zpd)


def test_random_is_uniform_and_knows_nothing_of_difficulty() -> None:
    items = candidates()
    score = load("random").score(items, config())
    assert kstest(score, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(score, items.b)[0, 1]) < 4 / np.sqrt(N)


def test_random_draws_anew_for_each_seed_and_stage() -> None:
    draws = [load("random").score(candidates(seed=s, stage=t), config()) for s, t in ((0, 0), (1, 0), (0, 1))]
    top = [set(np.argsort(draw)[: N // 10].tolist()) for draw in draws]
    for other in top[1:]:  # hypergeometric: 200 expected in common, sd 13
        assert len(top[0] & other) == pytest.approx(N / 100, abs=60)


def test_every_item_is_as_likely_as_any_other() -> None:
    """Of 100 items, the first is in the top half for about half of 400 seeds."""
    few = pa.chunked_array([pa.array([f"item-{i}" for i in range(100)])])
    chosen = np.zeros(100)
    for seed in range(400):
        hashes = item_hash(few, seed, 0, "select")
        items = Candidates(0.0, hashes, *np.zeros((5, 100)), {})
        chosen[np.argsort(load("random").score(items, config()))[50:]] += 1
    assert np.abs(chosen - 200).max() < 5 * 10  # sd of a count is 10
