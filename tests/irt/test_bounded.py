"""No input makes a fit run away: time and memory stay bounded, and what is not a maximum says so."""

from __future__ import annotations

import time
import tracemalloc
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zpd_ray import irt
from zpd_ray.irt.stages.concurrent import _log_evidence, fit_stages

SECONDS, BYTES = 15.0, 1_000_000_000  # 5 s on an idle machine; others run tests beside this
SIGMA_MAX = 10.0

worlds = st.fixed_dictionaries(
    {
        "stages": st.integers(1, 4),
        "items": st.sampled_from([1, 2, 30, 1000, 10_000]),
        "rollouts": st.sampled_from([1, 2, 16]),
        "answers": st.sampled_from(["drawn", "all or nothing", "all right", "all wrong", "separated"]),
        "covariates": st.integers(0, 2),
        "unit": st.sampled_from([1e-6, 1.0, 1e6]),
        "floor": st.sampled_from([None, 0.25, "some"]),
        "theta_sd": st.sampled_from([0.1, 5.0, 1e6]),
        "seed": st.integers(0, 100),
    }
)


def drawn(
    stages: int,
    items: int,
    rollouts: int,
    answers: str,
    covariates: int,
    unit: float,
    floor: float | str | None,
    theta_sd: float,
    seed: int,
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | float | None], irt.Prior]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(items, covariates))
    p = {"all right": 1.0, "all wrong": 0.0}.get(answers, rng.uniform(size=items))
    if answers == "all or nothing":
        p = np.round(p)
    if answers == "separated" and covariates:
        p = (x[:, 0] < 0).astype(float)
    s = rng.binomial(rollouts, np.broadcast_to(p, (stages, items)))
    c = np.where(np.arange(items) % 2, 0.25, 0.0) if floor == "some" else floor
    prior = irt.Prior(theta_sd=theta_sd, gamma_sd=3.0, sigma_log_sd=1.0)
    return (s, np.full_like(s, rollouts), unit * x, c), prior


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds)
def test_no_pool_keeps_a_fit_long_or_fills_the_memory(world: dict) -> None:
    arguments, prior = drawn(**world)
    tracemalloc.start()
    started = time.process_time()
    fit = irt.fit_explanatory(*arguments, prior=prior)
    seconds, (_, most) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < SECONDS
    assert most < BYTES
    assert fit.sigma <= SIGMA_MAX * 1.0001
    assert np.isfinite(fit.theta).all()
    if fit.converged and "weakly_identified" not in fit.flags:
        assert fit.grad_norm < 1e-2 * max(1.0, np.sqrt(world["items"] * world["rollouts"]))


def test_rollouts_that_are_all_or_nothing_are_named() -> None:
    rng = np.random.default_rng(0)
    s = 16 * rng.integers(0, 2, (1, 2000))
    fit = irt.fit_explanatory(s, np.full_like(s, 16), rng.normal(size=(2000, 1)))
    assert "responses_all_or_nothing" in fit.flags
    assert fit.sigma == pytest.approx(SIGMA_MAX)


def test_an_unknown_sigma_is_integrated_in_bounded_time() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(10_000, 1))
    s = rng.binomial(1, 1 / (1 + np.exp(10 * x.T)))
    started = time.process_time()
    fit = fit_stages(s, np.ones_like(s), x, prior=irt.Prior(theta_sd=5.0, gamma_sd=3.0, sigma_log_sd=1.0))
    assert time.process_time() - started < SECONDS
    assert fit.theta_se[0] > fit.fit.theta_se[0]


def test_a_fit_that_has_no_maximum_has_no_weight_and_gives_no_warning() -> None:
    fit = irt.fit_explanatory([[1, 0, 1]], np.ones((1, 3)), np.zeros((3, 0)), prior=irt.Prior(theta_sd=2.0))
    lost = replace(fit, covariance=np.full_like(fit.covariance, np.nan))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _log_evidence(lost, irt.Prior(theta_sd=2.0)) == -np.inf
        assert np.isfinite(_log_evidence(fit, irt.Prior(theta_sd=2.0)))


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_the_unit_of_a_covariate_changes_nothing_but_its_slope(unit: float) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2000, 2))
    s = rng.binomial(3, 1 / (1 + np.exp(x @ [0.8, -0.3] - np.array([[0.3], [-0.2]]))))
    one, other = (irt.fit_explanatory(s, np.full_like(s, 3), scale * x) for scale in (1.0, unit))
    np.testing.assert_allclose(other.theta, one.theta, atol=1e-6)
    np.testing.assert_allclose(other.gamma * unit, one.gamma, atol=1e-6)
    np.testing.assert_allclose(other.gamma_se * unit, one.gamma_se, rtol=1e-4)
    assert other.converged


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: irt.fit(np.ma.masked_array(np.eye(4), mask=np.eye(4)), "rasch"), "masked array.*NaN"),
        (lambda: irt.fit([[1, 0], [1]], "rasch"), "rows of different lengths"),
        (
            lambda: irt.fit_explanatory(
                np.eye(2, 9), np.ones((2, 9)), np.zeros((9, 0)), prior=irt.Prior(theta_sd=np.ones(3))
            ),
            r"theta_sd must be a number or have shape \(2,\)",
        ),
        (
            lambda: irt.fit_explanatory(
                np.eye(2, 9), np.ones((2, 9)), np.zeros((9, 0)), prior=irt.Prior(sigma_median=np.inf)
            ),
            "sigma_median must be > 0 and finite",
        ),
        (lambda: irt.ProbeBank(np.zeros(3)).next(np.nan), "theta must be a finite number"),
    ],
)
def test_bad_input_is_told_in_words(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_many_rollouts_do_not_overflow() -> None:
    world = irt.simulate(2, 50, trials=40_000, seed=1)
    assert (world.trials == 40_000).all()
    assert ((world.successes >= 0) & (world.successes <= 40_000)).all()


def test_the_best_probe_far_from_all_items_is_the_most_informative_one() -> None:
    rng = np.random.default_rng(3)
    b, a, c = rng.normal(size=500), rng.uniform(0.8, 1.2, 500), np.full(500, 0.2)
    for theta in (-200.0, -45.0, 45.0, 200.0):
        best = irt.ProbeBank(b, a, c, top=1).next(theta)
        assert irt.information(theta, a[best], b[best], c[best]) == irt.information(theta, a, b, c).max()


@pytest.mark.parametrize("gain", [0.3, 0.6])
def test_responses_that_repeat_one_another_do_not_make_a_gain_certain(gain: float) -> None:
    """One draw of luck per item for both stages, as with greedy decoding by a model that hardly moved."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(4000, 1))
    luck = rng.logistic(size=4000) + x[:, 0]
    s = np.stack([luck < theta for theta in (0.0, gain)]).astype(int)
    fit = fit_stages(s, np.ones_like(s), x, prior=irt.Prior(theta_sd=5.0, gamma_sd=3.0, sigma_log_sd=1.0))
    assert fit.gain_se[1] > 0.1
    assert abs(fit.gain[1] - gain) < 3 * fit.gain_se[1]
