"""LLTM and latent regression."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from zpd_ray import irt


def test_verbal_aggression_lltm_against_adaptive_quadrature(verbagg):
    responses, x, values = verbagg
    known = values["lltm_no_residual_lme4_AGQ25"]
    fit = irt.fit_lltm(responses, x, origin=np.zeros(4))
    effects, errors = list(known["fixed"].values()), list(known["se_fixed"].values())
    assert fit.loglik == pytest.approx(known["logLik"], abs=1e-2)
    assert fit.theta_mean == pytest.approx(effects[0], abs=1e-3)
    assert -fit.gamma == pytest.approx(effects[1:], abs=1e-3)
    assert fit.theta_sd == pytest.approx(known["sd_random"]["id"], abs=1e-3)
    assert [fit.se_theta_mean, *fit.gamma_se] == pytest.approx(errors, abs=1e-3)


def test_lltm_is_nested_in_the_rasch_model(verbagg):
    responses, x, _ = verbagg
    test = irt.compare(irt.fit_lltm(responses, x), irt.fit(responses, "rasch"))
    assert test.df == 25 - 6
    assert test.statistic == pytest.approx(2 * (4116.6131 - 4036.9049), abs=0.01)
    assert test.p < 1e-20


def test_lltm_recovers_effects_with_missing_responses():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 2))
    theta, b = 0.5 + 1.2 * rng.normal(size=1500), (x - x.mean(0)) @ [0.9, -0.4]
    right = (rng.random((1500, 12)) < expit(theta[:, None] - b)).astype(float)
    right[rng.random(right.shape) < 0.2] = np.nan
    fit = irt.fit_lltm(right, x)
    for estimate, se, truth in (
        (fit.gamma, fit.gamma_se, np.array([0.9, -0.4])),
        (fit.theta_mean, fit.se_theta_mean, 0.5),
        (fit.theta_sd, fit.se_theta_sd, 1.2),
    ):
        assert (np.abs(estimate - truth) < 3.5 * np.asarray(se)).all()


def test_persons_random_without_covariates_is_the_rasch_model():
    truth = irt.simulate(400, 10, seed=1, missing=0.1)
    mirrored = irt.fit_persons(truth.successes, truth.trials, np.zeros((400, 0)))
    rasch = irt.fit(truth.responses, "rasch")
    assert mirrored.loglik == pytest.approx(rasch.loglik, abs=1e-6)
    assert mirrored.sigma == pytest.approx(rasch.theta_sd, abs=1e-5)
    assert mirrored.b == pytest.approx(rasch.b, abs=1e-5)
    assert mirrored.b_se == pytest.approx(rasch.se_b, abs=1e-5)
    eap = irt.ability(truth.responses, 1.0, rasch.b, theta_sd=rasch.theta_sd)
    assert mirrored.theta_mean == pytest.approx(eap.theta, abs=1e-4)


def test_latent_regression_recovers_the_effect_of_a_person_covariate():
    truth = irt.simulate(2000, 15, person_gamma=(0.7,), theta_sd=0.8, seed=2)
    fit = irt.fit_persons(truth.successes, truth.trials, truth.person_covariates)
    assert abs(fit.gamma[0] - 0.7) < 3.5 * fit.gamma_se[0]
    assert abs(fit.sigma - 0.8) < 3.5 * fit.sigma_se


def test_verbal_aggression_with_random_items_is_near_laplace(verbagg):
    """Both sides are random in the reference (lme4, Laplace): slopes agree to its stated 0.02 or so."""
    responses, x, values = verbagg
    known = values["explanatory_random_item_lme4_Laplace"]
    prior = irt.Prior(theta_mean=known["fixed"]["(Intercept)"], theta_sd=known["sd_random"]["id"])
    fit = irt.fit_explanatory(responses, np.ones_like(responses), x, origin=np.zeros(4), prior=prior)
    assert -fit.gamma == pytest.approx(list(known["fixed"].values())[1:], abs=0.12)
