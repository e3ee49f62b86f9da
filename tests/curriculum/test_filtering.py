"""The filter against the posterior on a grid, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from zpd_ray.curriculum.filtering import Common, Normal, absorb, moments
from zpd_ray.curriculum.scoring import expected_score

Floats = NDArray[np.float64]
WIDE = Common(np.array([0.5, 0.1]), np.array([[4.0, -0.05], [-0.05, 0.25]]))


def batch(seed: int, n: int, k: int) -> tuple[Normal, NDArray[np.bool_], Floats, Floats]:
    rng = np.random.default_rng(seed)
    b = Normal(rng.normal(size=n), rng.uniform(0.3, 4.0, n))
    true_b = b.mean + np.sqrt(b.var) * rng.normal(size=n)
    return b, rng.random(n) < 0.5, rng.binomial(k, expit(-1.0 - true_b)).astype(float), np.full(n, float(k))


def by_grid(
    common: Common, b: Normal, practised: NDArray[np.bool_], s: Floats, k: Floats
) -> tuple[Floats, Floats]:
    """Mean and sd of theta and delta, with each b integrated out by 40-point Gauss-Hermite quadrature."""
    theta, delta = np.meshgrid(np.linspace(-12, 12, 241), np.linspace(-3, 3, 121), indexing="ij")
    apart = np.stack([theta - common.mean[0], delta - common.mean[1]], axis=-1)
    log = -0.5 * np.einsum("...i,ij,...j", apart, np.linalg.inv(common.cov), apart)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    for i in range(len(s)):
        x = (theta + practised[i] * delta - b.mean[i])[..., None] - np.sqrt(b.var[i]) * nodes
        log += np.log(np.exp(s[i] * x + k[i] * log_expit(-x)) @ weights)
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    mean = np.array([(weight * theta).sum(), (weight * delta).sum()])
    square = np.array([(weight * theta**2).sum(), (weight * delta**2).sum()])
    return mean, np.sqrt(square - mean**2)


@pytest.mark.parametrize(("n", "k"), [(1, 8), (3, 1), (20, 4), (60, 8)])
def test_ability_and_practice_are_those_of_the_whole_posterior(n: int, k: int) -> None:
    b, practised, s, rollouts = batch(n, n, k)
    found, _ = absorb(WIDE, b, practised, s, rollouts)
    mean, sd = by_grid(WIDE, b, practised, s, rollouts)
    assert_allclose(found.mean, mean, atol=0.04)
    assert_allclose(np.sqrt(np.diag(found.cov)), sd, rtol=0.03)


def test_a_difficulty_beside_a_known_ability_is_that_of_quadrature() -> None:
    known = Common(np.array([0.7, 0.0]), np.diag([1e-10, 1e-10]))
    b, practised, s, k = batch(1, 50, 8)
    _, after = absorb(known, b, practised, s, k)
    at = b.mean + np.sqrt(b.var) * np.linspace(-9, 9, 2001)[:, None]
    log = -0.5 * (at - b.mean) ** 2 / b.var + s * (0.7 - at) + k * log_expit(at - 0.7)
    weight = np.exp(log - log.max(axis=0))
    weight /= weight.sum(axis=0)
    mean = (weight * at).sum(axis=0)
    assert_allclose(after.mean, mean, atol=2e-3)
    assert_allclose(after.var, (weight * (at - mean) ** 2).sum(axis=0), rtol=5e-3)


@pytest.mark.parametrize("mean", [-60.0, -8.0, 0.0, 8.0, 60.0])
@pytest.mark.parametrize(("s", "k"), [(0, 1), (1, 1), (0, 64), (64, 64), (31, 64), (1, 1000)])
def test_extreme_rollouts_leave_finite_moments(mean: float, s: int, k: int) -> None:
    x = Normal(np.array([mean]), np.array([9.0]))
    after = moments(x, np.array([float(s)]), np.array([float(k)]))
    assert np.isfinite(after.mean).all()
    assert (after.var > 0).all()
    assert (after.var <= x.var * (1 + 1e-6)).all()
    surprise = s - k * expit(mean)  # the mean moves the way the rollouts point
    assert (after.mean - mean) * surprise >= -1e-6


def test_the_order_of_a_batch_says_nothing() -> None:
    b, practised, s, k = batch(5, 40, 8)
    turn = np.random.default_rng(0).permutation(40)
    one, b_one = absorb(WIDE, b, practised, s, k)
    two, b_two = absorb(WIDE, Normal(b.mean[turn], b.var[turn]), practised[turn], s[turn], k[turn])
    assert_allclose(one.mean, two.mean, rtol=1e-10)
    assert_allclose(b_one.mean[turn], b_two.mean, rtol=1e-10)


@pytest.mark.parametrize("sd", [0.0, 0.3, 1.0, 3.0, 6.0])
def test_three_normals_are_the_expected_variance_of_a_reward(sd: float) -> None:
    mean = np.linspace(-14, 14, 57)
    nodes = np.linspace(-9, 9, 4001)
    weights = np.exp(-0.5 * nodes**2) / np.exp(-0.5 * nodes**2).sum()
    p = expit(mean[:, None] + sd * nodes)
    assert_allclose(expected_score(mean, np.full(57, sd**2)), (p * (1 - p)) @ weights, atol=1e-4)
