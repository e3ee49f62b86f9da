"""The elementwise posterior: exact, and the same bits in any block."""

from __future__ import annotations

from math import comb, exp, pi, sqrt

import numpy as np
import pytest
from scipy.integrate import quad

from tests.irt.pool.exact import item_posterior
from zpd_ray.irt.pool.posterior import difficulty_posterior


@pytest.mark.parametrize("guess", [0.0, 0.25])
@pytest.mark.parametrize(("s", "k"), [(0, 0), (0, 1), (1, 1), (0, 16), (16, 16), (5, 16)])
@pytest.mark.parametrize("m", [-6.0, 0.3, 5.0])
@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_agrees_with_adaptive_integration(guess: float, s: int, k: int, m: float, sigma: float) -> None:
    theta = 0.7

    def density(b: float) -> float:
        p = guess + (1 - guess) / (1 + exp(b - theta))
        prior = exp(-(((b - m) / sigma) ** 2) / 2) / (sigma * sqrt(2 * pi))
        return comb(k, s) * p**s * (1 - p) ** (k - s) * prior

    low, high = m - sigma**2 * k - 9 * sigma, m + sigma**2 * k + 9 * sigma
    points = np.linspace(low, high, 60)[1:-1]
    total, first, second = (
        quad(lambda b, n=n: b**n * density(b), low, high, points=points, limit=500)[0] for n in range(3)
    )
    mean, sd = item_posterior(theta, [m], sigma, [s], [k], guess)
    assert mean[0] == pytest.approx(first / total, abs=1e-5)
    assert sd[0] == pytest.approx(np.sqrt(second / total - (first / total) ** 2), abs=1e-4)


def test_same_bits_in_any_block() -> None:
    rng = np.random.default_rng(0)
    m, k = rng.normal(size=40_000) * 3, rng.integers(0, 9, 40_000)
    s = rng.binomial(k, 0.5)
    whole = item_posterior(0.2, m, 0.8, s, k, 0.25)
    order = rng.permutation(40_000)
    for block in np.split(order, [1, 3, 1000, 20_000]):
        part = item_posterior(0.2, m[block], 0.8, s[block], k[block], 0.25)
        np.testing.assert_array_equal(part, [whole[0][block], whole[1][block]])


@pytest.mark.parametrize("guess", [0.0, 0.25])
@pytest.mark.parametrize("k", [0, 1, 4, 16])
@pytest.mark.parametrize("sigma", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("n", [300, pytest.param(3000, marks=pytest.mark.nightly)])
def test_difficulty_posterior_is_the_items_own_to_a_ten_millionth(
    guess: float, k: int, sigma: float, n: int
) -> None:
    """With 16 responses that may be guessed, two humps make it a millionth."""
    rng = np.random.default_rng(k)
    m, trials, s = rng.uniform(-12, 12, n), np.full(n, k), rng.integers(0, k + 1, n)
    exact = item_posterior(0.3, m, sigma, s, trials, guess)
    smooth = difficulty_posterior(0.3, m, sigma, s, trials, guess)
    within = 1e-6 if guess and k == 16 else 1e-7
    np.testing.assert_allclose(smooth, exact, rtol=0, atol=within)


def test_difficulty_posterior_has_the_same_bits_in_any_block() -> None:
    rng = np.random.default_rng(0)
    m, k = np.concatenate([rng.normal(size=8000) * 3, [-400.0, 0.0, 0.5, 900.0]]), rng.integers(0, 9, 8004)
    s, guess = rng.binomial(k, 0.5), rng.choice([0.0, 0.2, 0.25], 8004)
    whole = difficulty_posterior(0.2, m, 0.8, s, k, guess)
    assert np.isfinite(whole).all()
    for block in np.split(rng.permutation(8004), [1, 3, 1000, 5000, 5000]):
        part = difficulty_posterior(0.2, m[block], 0.8, s[block], k[block], guess[block])
        np.testing.assert_array_equal(part, [whole[0][block], whole[1][block]])
