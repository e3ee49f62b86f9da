"""Grids that follow the posteriors give what a grid over everything gives, with a share of the nodes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logsumexp, xlogy

from zpd_ray.irt.pool import marginal
from zpd_ray.irt.pool.blocks import Latent, blocks, posterior
from zpd_ray.irt.pool.design import Design, build

THETA, GAMMA = np.array([1.5, -0.5, 0.2]), np.array([0.6])


def pool(floor: str) -> tuple[Design, np.ndarray]:
    """Up to 300 rollouts of 45 items by three respondents, some items all right, all wrong or against all
    expectation (a hump where the prior is and one where the responses are), and their floors.
    """
    rng = np.random.default_rng(1)
    n = 45
    x = rng.normal(size=(n, 1))
    c = {"none": np.zeros(n), "equal": np.full(n, 0.25), "some": np.where(np.arange(n) % 2, 0.25, 0.0)}[floor]
    p = c + (1 - c) * expit(THETA[:, None] - 2.0 * rng.normal(size=n))
    p[:, :8], p[:, 8:16] = 1.0, c[8:16]
    k = np.where(rng.random((3, n)) < 0.4, rng.integers(0, 3, (3, n)), 300)
    return build(rng.binomial(k, p), k, x, c, rng.integers(1, 4, n).astype(float)), c


def plain(design: Design, c: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log marginal likelihood, posterior mean and sd of each item, on 20,000 nodes."""
    log, mean, sd = np.empty((3, design.n_items))
    for i, m in enumerate(design.covariates @ GAMMA):
        b = np.linspace(m - 25.0 * sigma - 10.0, m + 25.0 * sigma + 10.0, 20_001)
        p = c[i] + (1.0 - c[i]) * expit(THETA[:, None] - b)
        s, k = design.successes[:, [i]], design.trials[:, [i]]
        wrong = np.log((1.0 - c[i]) * expit(b - THETA[:, None]))
        logs = (xlogy(s, p) + (k - s) * wrong).sum(axis=0) - 0.5 * ((b - m) / sigma) ** 2
        total = logsumexp(logs)
        weight = np.exp(logs - total)
        mean[i] = weight @ b
        sd[i] = np.sqrt(weight @ (b - mean[i]) ** 2)
        log[i] = total + np.log((b[1] - b[0]) / (sigma * np.sqrt(2.0 * np.pi)))
    return log, mean, sd


@pytest.mark.parametrize("sigma", [0.3, 1.0, 8.0])
@pytest.mark.parametrize("floor", ["none", "equal", "some"])
def test_likelihood_and_posteriors_agree_with_plain_quadrature(floor: str, sigma: float) -> None:
    data, c = pool(floor)
    log, mean, sd = plain(data, c, sigma)
    value, _, _ = marginal.objective(data, np.concatenate([THETA, GAMMA, [np.log(sigma)]]), False)
    assert value == pytest.approx(data.freq @ log, abs=1e-6)
    found = marginal.moments(data, Latent(THETA, GAMMA, sigma))
    np.testing.assert_allclose(found[0], mean, atol=1e-6)
    np.testing.assert_allclose(found[1], sd, atol=1e-6)


@pytest.mark.parametrize("floor", ["none", "some"])
def test_derivatives_on_narrow_grids_agree_with_differences(floor: str) -> None:
    data, _ = pool(floor)
    phi = np.concatenate([THETA, GAMMA, [0.0]])
    _, gradient, hessian = marginal.objective(data, phi, True)
    for i, step in enumerate(1e-5 * np.eye(phi.size)):
        above, below = (marginal.objective(data, phi + sign * step, False) for sign in (1, -1))
        assert gradient[i] == pytest.approx((above[0] - below[0]) / 2e-5, rel=1e-5, abs=1e-3)
        np.testing.assert_allclose(hessian[i], (above[1] - below[1]) / 2e-5, rtol=1e-4, atol=0.1)


def test_every_item_is_in_one_block_and_most_nodes_are_saved() -> None:
    rng = np.random.default_rng(2)
    theta = rng.normal(size=12)
    b = rng.normal(size=2000)
    k = np.full((12, 2000), 300)
    s = rng.binomial(k, expit(theta[:, None] - b))
    data = build(s, k, np.zeros((2000, 0)), np.zeros(2000), np.ones(2000))
    latent = Latent(theta, np.zeros(0), 1.0)
    found = list(blocks(data, latent))
    where = np.concatenate([np.arange(2000)[block.columns] for block in found])
    assert np.array_equal(np.sort(where), np.arange(2000))
    cells = sum(posterior(block, latent).weights.size for block in found)
    narrowest = np.sqrt(1.0 / (1.0 + 12 * 300 * 0.25))
    assert cells < 0.15 * 2000 * 14.0 / (0.85 * narrowest)
