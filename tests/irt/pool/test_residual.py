"""The residual on a grid: what is there is found, the base where nothing is told, no order changes a bit."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit
from scipy.stats import binom, norm

from tests.irt.pool.exact import item_posterior
from zpd_ray.irt.pool.residual import Residual, fit_residual, residual_posterior

THETA = 0.4


def fitted(
    e: np.ndarray, k: int, guess: float = 0.0, seed: int = 0, order: np.ndarray | None = None
) -> Residual:
    """Of items with residuals ``e``, k responses each; prior means in bins, as a run has them."""
    rng = np.random.default_rng(seed)
    m = np.round(1.2 * rng.normal(size=e.size), 2)
    s = rng.binomial(k, guess + (1 - guess) * expit(THETA - m - e))
    rows = np.arange(e.size) if order is None else order
    trials, floor, ones = np.full(e.size, k), np.full(e.size, guess), np.ones(e.size, int)
    return fit_residual(THETA, m[rows], float(e.std()), s[rows], trials, floor, ones)


def within(residual: Residual, low: float, high: float) -> float:
    inside = (residual.nodes >= low) & (residual.nodes <= high)
    return float(residual.weights[inside].sum())


@pytest.mark.parametrize("guess", [0.0, 0.25])
def test_a_mixture_is_recovered(guess: float) -> None:
    rng = np.random.default_rng(1)
    found = fitted(rng.choice([-2.0, 3.0], 20_000, p=[0.7, 0.3]), 8, guess)
    assert within(found, -2.6, -1.4) == pytest.approx(0.7, abs=0.05)
    assert within(found, 2.2, 4.0) == pytest.approx(0.3, abs=0.05)
    assert within(found, -0.8, 1.4) < 0.05
    assert found.mean == pytest.approx(0.7 * -2 + 0.3 * 3, abs=0.15)


def test_two_responses_each_tell_two_humps_from_one() -> None:
    rng = np.random.default_rng(2)
    humps = fitted(rng.choice([-2.0, 2.0], 5000), 2)
    one = fitted(2.0 * rng.normal(size=5000), 2)
    assert within(humps, -0.5, 0.5) < 0.5 * within(one, -0.5, 0.5)


@pytest.mark.parametrize("sigma", [0.4, 0.8, 2.0])
def test_a_normal_residual_gives_what_the_normal_model_gives(sigma: float) -> None:
    rng = np.random.default_rng(3)
    found = fitted(sigma * rng.normal(size=50_000), 16)
    m, s, k, c = np.linspace(-3, 3, 40), np.arange(40) % 17, np.full(40, 16), np.zeros(40)
    keep = binom(16, expit(THETA - m)).pmf(s) > 1e-3  # others are seldom seen
    m, s, k, c = m[keep], s[keep], k[keep], c[keep]
    weights = residual_posterior(THETA, m, found, s, k, c)
    mean, sd = item_posterior(THETA, m, sigma, s, k)
    assert_allclose(m + weights @ found.nodes, mean, atol=0.25 * sigma)
    spread = np.sqrt(weights @ found.nodes**2 - (weights @ found.nodes) ** 2)
    assert_allclose(spread, sd, rtol=0.35)
    assert found.sd == pytest.approx(sigma, rel=0.05)


def test_without_evidence_the_base_stays() -> None:
    """Few items: a Student residual of the same sd, more of it far out than a normal has."""
    found = fitted(np.array([0.5, -0.5]), 2)
    assert found.sd == pytest.approx(0.5, rel=0.1)
    assert found.mean == pytest.approx(0.0, abs=0.05)
    assert 1.0 - within(found, -1.8, 1.8) > 2 * 2 * norm.sf(1.8, scale=0.5)
    assert_allclose(found.weights.sum(), 1.0)


def test_the_order_of_items_changes_no_bit() -> None:
    e = np.random.default_rng(4).standard_t(3, size=4000)
    first = fitted(e, 4, 0.25)
    for seed in range(3):
        again = fitted(e, 4, 0.25, order=np.random.default_rng(seed).permutation(4000))
        assert_array_equal(first, again)


def test_the_posterior_is_that_of_the_sum_over_nodes_whatever_the_block() -> None:
    rng = np.random.default_rng(5)
    residual = Residual(np.array([-2.0, 0.0, 1.5]), np.array([0.2, 0.5, 0.3]))
    m, k, c = 3 * rng.normal(size=500), rng.integers(0, 17, 500), rng.choice([0.0, 0.25], 500)
    s = rng.binomial(k, 0.5)
    whole = residual_posterior(THETA, m, residual, s, k, c)
    p = c[:, None] + (1 - c[:, None]) * expit(THETA - m[:, None] - residual.nodes)
    joint = binom(k[:, None], p).pmf(s[:, None]) * residual.weights
    assert_allclose(whole, joint / joint.sum(axis=1, keepdims=True), rtol=1e-9, atol=1e-14)
    assert_allclose(whole[k == 0], np.broadcast_to(residual.weights, whole[k == 0].shape))
    for rows in np.split(rng.permutation(500), [1, 3, 200]):
        assert_array_equal(
            residual_posterior(THETA, m[rows], residual, s[rows], k[rows], c[rows]), whole[rows]
        )


def test_responses_far_from_every_node_leave_numbers() -> None:
    residual = Residual(np.array([-1.0, 1.0]), np.array([0.5, 0.5]))
    m, k = np.array([-900.0, 900.0]), np.array([300, 300])
    found = residual_posterior(0.0, m, residual, np.array([0, 300]), k, np.zeros(2))
    assert np.isfinite(found).all()
    assert found[0, 1] > 0.99  # all wrong though easy: the harder node
    assert found[1, 0] > 0.99


@pytest.mark.parametrize(("n", "most"), [(10_000, 16), (10_000, 300)])
def test_ten_thousand_different_items_take_seconds(n: int, most: int) -> None:
    rng = np.random.default_rng(6)
    m, k = 6 * rng.normal(size=n), rng.integers(1, most + 1, n)
    c = 1.0 / rng.integers(2, 12, n)
    s = rng.binomial(k, c + (1 - c) * expit(-m - rng.choice([-4.0, 4.0], n)))
    started = time.process_time()
    fit_residual(0.0, m, 4.0, s, k, c, np.ones(n, int))
    assert time.process_time() - started < 15.0  # 5 s on an idle machine
