"""The explanatory Rasch model: reference values, derivatives, invariances, limits, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, xlog1py, xlogy

from zpd_ray.irt import Prior, fit_explanatory, posterior_difficulty
from zpd_ray.irt.pool import curves, design, marginal


def simulated(rng, n_respondents, n_items, gamma=(0.8,), sigma=0.6, k=1, c=0.0):
    theta = rng.normal(size=n_respondents)
    x = rng.normal(size=(n_items, len(gamma)))
    b = (x - x.mean(axis=0)) @ np.array(gamma) + sigma * rng.normal(size=n_items)
    trials = np.full((n_respondents, n_items), k)
    return rng.binomial(trials, c + (1 - c) * expit(theta[:, None] - b)), trials, x, theta, b


def test_chembench_explanatory_against_exact_quadrature(chembench):
    right, x, reference = chembench
    fit = fit_explanatory(right, np.ones_like(right), x, origin=[0.0, 0.0])
    known = reference["explanatory_mirt"]
    assert fit.sigma == pytest.approx(known["sigma_b"], abs=1e-3)
    assert fit.sigma_se == pytest.approx(known["se_sigma_b"], abs=1e-3)
    assert fit.gamma == pytest.approx(list(known["gamma_difficulty"].values()), abs=1e-3)
    assert fit.loglik == pytest.approx(-35059.957, abs=0.01)
    assert fit.theta == pytest.approx(known["theta"], abs=1e-4)
    assert fit.theta_se == pytest.approx(known["se_theta"], abs=1e-4)
    assert fit.converged
    assert fit.grad_norm < 1e-4


def test_chembench_null_against_exact_quadrature(chembench):
    right, x, reference = chembench
    fit = fit_explanatory(right, np.ones_like(right), x[:, :0])
    known = reference["null_mirt"]
    assert fit.sigma**2 == pytest.approx(known["sigma2_b"], abs=1e-4)
    assert fit.loglik == pytest.approx(known["logLik"], abs=1e-3)
    assert fit.theta == pytest.approx(known["theta"], abs=1e-4)
    assert fit.theta_se == pytest.approx(known["se_theta"], abs=1e-4)
    assert fit.b_mean[:10] == pytest.approx(known["b_eap_first10"], abs=1e-4)
    assert fit.b_sd[:10] == pytest.approx(known["b_sd_first10"], abs=1e-4)


@pytest.mark.parametrize("guessing", [False, True])
def test_derivatives_agree_with_differences(guessing):
    rng = np.random.default_rng(1)
    k = rng.integers(0, 4, (3, 40))
    s, x = rng.binomial(k, 0.5), rng.normal(size=(40, 2))
    c = np.where(rng.random(40) < 0.5, 0.25, 0.0) * guessing
    data = design.build(s, k, x, c, rng.integers(1, 4, 40).astype(float))
    phi = np.array([0.3, -0.5, 0.8, 0.4, -0.2, np.log(0.7)])
    _, gradient, hessian = marginal.objective(data, phi, True)
    for i, step in enumerate(1e-5 * np.eye(6)):
        above, below = (marginal.objective(data, phi + sign * step, False) for sign in (1, -1))
        assert gradient[i] == pytest.approx((above[0] - below[0]) / 2e-5, abs=1e-6)
        assert hessian[i] == pytest.approx((above[1] - below[1]) / 2e-5, rel=1e-5, abs=1e-3)


def test_items_with_and_without_a_floor_in_one_pool_agree_with_plain_quadrature():
    rng = np.random.default_rng(11)
    k = rng.integers(0, 4, (3, 40))
    s, x = rng.binomial(k, 0.5), rng.normal(size=(40, 1))
    c, freq = np.where(np.arange(40) % 2, 0.25, 0.0), rng.integers(1, 4, 40).astype(float)
    theta, gamma, sigma = np.array([0.3, -0.5, 0.8]), 0.4, 0.7
    value, _, _ = marginal.objective(
        design.build(s, k, x, c, freq), np.array([*theta, gamma, np.log(sigma)]), False
    )
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    b = gamma * x + sigma * nodes  # (n_items, n_nodes)
    p = c[:, None] + (1 - c[:, None]) * expit(theta[:, None, None] - b)
    likelihood = np.exp((xlogy(s[..., None], p) + xlog1py((k - s)[..., None], -p)).sum(axis=0))
    assert value == pytest.approx(freq @ np.log(likelihood @ weights / weights.sum()), abs=1e-8)


def test_a_pool_of_mixed_floors_recovers_ability():
    rng = np.random.default_rng(12)
    x, c = rng.normal(size=(4000, 1)), np.where(np.arange(4000) % 2, 0.25, 0.0)
    theta, b = np.array([0.3, 1.0]), 0.8 * x[:, 0] + 0.5 * rng.normal(size=4000)
    k = np.full((2, 4000), 3)
    s = rng.binomial(k, c + (1 - c) * expit(theta[:, None] - b))
    fit = fit_explanatory(s, k, x, c)
    assert np.abs((fit.theta - theta) / fit.theta_se).max() < 4
    assert fit.flags == ()


@pytest.mark.parametrize("seed", range(20))
def test_curves_hold_to_their_ends(seed):
    """The lowest item of a pool falls on the first point of the table, or by rounding just under it."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, 1))
    data = design.build(
        rng.binomial(1, 0.5, (1, 200)), np.ones((1, 200), int), x, np.zeros(200), np.ones(200)
    )
    phi = np.array([0.2, rng.uniform(0.5, 10.0), np.log(0.2)])
    one, other = (of.objective(data, phi, False) for of in (marginal, curves))
    np.testing.assert_allclose(one[1], other[1], atol=1e-3, rtol=1e-5)


def test_curves_agree_with_item_by_item_quadrature():
    rng = np.random.default_rng(2)
    k = np.ones((3, 50), int) * np.array([[1], [2], [1]])
    data = design.build(
        rng.binomial(k, 0.5), k, rng.normal(size=(50, 2)), np.zeros(50), rng.integers(1, 4, 50).astype(float)
    )
    phi = np.array([0.3, -0.5, 0.8, 0.4, -0.2, np.log(0.7)])
    for one, other in zip(
        marginal.objective(data, phi, True), curves.objective(data, phi, True), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("guess", [None, 0.25])
def test_posterior_of_a_long_block_is_that_of_its_items(guess):
    rng = np.random.default_rng(3)
    s, k, x, _, _ = simulated(rng, 1, 25_000, k=3, c=guess or 0.0)
    k[0, ::7], s[0, ::7] = 0, 0
    fit = fit_explanatory(
        s[:, :2000][:, k[0, :2000] > 0], k[:, :2000][:, k[0, :2000] > 0], x[:2000][k[0, :2000] > 0], guess
    )
    mean, sd = posterior_difficulty(fit, s, k, x, guess)
    few_mean, few_sd = posterior_difficulty(fit, s[:, :500], k[:, :500], x[:500], guess)
    np.testing.assert_allclose(mean[:500], few_mean, atol=1e-7)
    np.testing.assert_allclose(sd[:500], few_sd, atol=1e-7)
    np.testing.assert_allclose(mean[::7], (x[::7] - fit.origin) @ fit.gamma, atol=1e-9)
    np.testing.assert_allclose(sd[::7], fit.sigma, atol=1e-9)


def test_frequencies_stand_for_repeated_items():
    rng = np.random.default_rng(4)
    s, k, x, _, _ = simulated(rng, 2, 60, k=3)
    x = np.round(x)
    freq = rng.integers(1, 5, 60)
    long = fit_explanatory(np.repeat(s, freq, 1), np.repeat(k, freq, 1), np.repeat(x, freq, 0))
    short = fit_explanatory(s, k, x, freq=freq)
    for name in ("theta", "theta_se", "gamma", "gamma_se", "sigma", "sigma_se", "loglik"):
        assert getattr(short, name) == pytest.approx(getattr(long, name), rel=1e-6)


def test_one_binary_response_per_item_leaves_sigma_to_the_prior():
    rng = np.random.default_rng(5)
    s, k, x, theta, _ = simulated(rng, 1, 5000)
    fit = fit_explanatory(s, k, x, prior=Prior(sigma_median=0.6))
    assert fit.flags == ("sigma_not_identified",)
    assert fit.sigma == 0.6
    assert np.isnan(fit.sigma_se)
    assert abs(fit.theta - theta) < 4 * fit.theta_se
    assert abs(fit.gamma - 0.8) < 4 * fit.gamma_se


def test_all_right_is_infinite_without_a_prior_and_finite_with_one():
    rng = np.random.default_rng(6)
    s, k, x, _, _ = simulated(rng, 3, 50)
    s[1] = 1
    free = fit_explanatory(s, k, x)
    assert free.theta_flags == ("", "all_right", "")
    assert np.isposinf(free.theta[1])
    others = fit_explanatory(s[[0, 2]], k[[0, 2]], x)
    assert free.theta[[0, 2]] == pytest.approx(others.theta)
    held = fit_explanatory(s, k, x, prior=Prior(theta_sd=2.0))
    assert np.isfinite(held.theta).all()
    assert np.isfinite(held.theta_se).all()
    assert "all_right" in held.flags
    with pytest.raises(ValueError, match="give a prior"):
        fit_explanatory(s[[1]], k[[1]], x)


def test_slopes_come_from_their_prior_where_the_data_are_silent():
    fit = fit_explanatory(
        [[1, 1, 1]],
        [[1, 1, 1]],
        [[0.0], [1.0], [2.0]],
        prior=Prior(theta_sd=2.0, gamma_mean=0.7, gamma_sd=0.01),
    )
    assert fit.gamma == pytest.approx([0.7], abs=1e-3)
    assert np.isfinite(fit.theta).all()


def test_a_covariate_that_separates_right_from_wrong_is_flagged():
    fit = fit_explanatory([[0, 0, 1, 1]], [[1, 1, 1, 1]], [[0.0], [1.0], [2.0], [3.0]])
    assert "weakly_identified" in fit.flags


def test_large_fits_with_missing_responses_agree_with_small_steps():
    """Above SAMPLE the steps use a sample's curvature and sorted items: gradient and order of output hold."""
    rng = np.random.default_rng(7)
    s, k, x, theta, b = simulated(rng, 4, 90_000, gamma=(0.8, -0.3))
    k = (rng.random(k.shape) > 0.3).astype(np.int8)
    kept = k.any(axis=0)
    s, k, x, b = (s * k)[:, kept].astype(np.int8), k[:, kept], x[kept], b[kept]
    fit = fit_explanatory(s, k, x)
    assert fit.converged
    information = 1.0 / np.nanmin(fit.theta_se) ** 2
    assert fit.grad_norm < 1e-4 * np.sqrt(information)
    assert np.abs(fit.theta - theta).max() < 4 * fit.theta_se.max()
    assert np.polyfit(fit.b_mean, b, 1)[0] == pytest.approx(1.0, abs=0.02)
    some = slice(1000, 1200)
    mean, sd = posterior_difficulty(fit, s[:, some], k[:, some], x[some])
    np.testing.assert_allclose(mean, fit.b_mean[some], atol=1e-6)
    np.testing.assert_allclose(sd, fit.b_sd[some], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"successes": [[2, 0, 1]]}, r"successes\[0, 0\] = 2"),
        ({"trials": [[1, 1]]}, "shape"),
        ({"covariates": [[1.0], [1.0], [1.0]]}, "covariate 0 is constant"),
        ({"covariates": [[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]}, "linearly dependent"),
        ({"covariates": [[np.nan], [1.0], [2.0]]}, r"covariates\[0, 0\]"),
        ({"trials": [[1, 0, 1]]}, "item 1 has no response"),
        ({"guess": 1.5}, "guess"),
    ],
)
def test_bad_input_names_the_place(change, message):
    good = {"successes": [[1, 0, 0]], "trials": [[1, 1, 1]], "covariates": [[0.0], [1.0], [2.0]]}
    with pytest.raises(ValueError, match=message):
        fit_explanatory(**(good | change))
