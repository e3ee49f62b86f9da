"""Methods: zpd is the matching score, random is uniform and blind."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal
from scipy.stats import kstest

from zpd_ray.config import Budget, SelectConfig
from zpd_ray.matching import zpd_score
from zpd_ray.selection import METHODS, Candidates
from zpd_ray.selection.keys import item_hash

N = 20_000
IDS = pa.chunked_array([pa.array([f"item-{i}" for i in range(N)])])


def candidates(theta: float = 0.0, seed: int = 0, stage: int = 0) -> Candidates:
    rng = np.random.default_rng(0)
    b, sd, guess = rng.normal(size=N), rng.uniform(0, 1, N), rng.choice([0.0, 0.25], N)
    return Candidates(theta, item_hash(IDS, seed, stage, "select"), b, sd, guess)


def config(**values: float) -> SelectConfig:
    return SelectConfig(budget=Budget(items=1), **values)


@pytest.mark.parametrize("name", METHODS)
def test_scores_lie_between_zero_and_the_upper_bound(name: str) -> None:
    score = METHODS[name].score(candidates(theta=0.7), config())
    assert score.shape == (N,)
    assert score.dtype == np.float64
    assert (score >= 0).all()
    assert (score <= METHODS[name].upper).all()


@pytest.mark.parametrize("target_p", [0.5, 0.7])
def test_zpd_is_the_score_of_matching(target_p: float) -> None:
    items = candidates(theta=0.4)
    expected = zpd_score(0.4, items.b, items.b_sd, items.guess, target_p)
    assert_array_equal(METHODS["zpd"].score(items, config(target_p=target_p)), expected)


def test_random_is_uniform_and_knows_nothing_of_difficulty() -> None:
    items = candidates()
    score = METHODS["random"].score(items, config())
    assert kstest(score, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(score, items.b)[0, 1]) < 4 / np.sqrt(N)


def test_random_draws_anew_for_each_seed_and_stage() -> None:
    draws = [
        METHODS["random"].score(candidates(seed=s, stage=t), config()) for s, t in ((0, 0), (1, 0), (0, 1))
    ]
    top = [set(np.argsort(draw)[: N // 10].tolist()) for draw in draws]
    for other in top[1:]:  # hypergeometric: 200 expected in common, sd 13
        assert len(top[0] & other) == pytest.approx(N / 100, abs=60)


def test_every_item_is_as_likely_as_any_other() -> None:
    """Of 100 items, the first is in the top half for about half of 400 seeds."""
    few = pa.chunked_array([pa.array([f"item-{i}" for i in range(100)])])
    chosen = np.zeros(100)
    for seed in range(400):
        hashes = item_hash(few, seed, 0, "select")
        items = Candidates(0.0, hashes, np.zeros(100), np.zeros(100), np.zeros(100))
        chosen[np.argsort(METHODS["random"].score(items, config()))[50:]] += 1
    assert np.abs(chosen - 200).max() < 5 * 10  # sd of a count is 10
