"""A fit that would take too long ends, says so, and ends at the same place however fast the machine is."""

from __future__ import annotations

import numpy as np
import pytest

from zpd_ray import irt

PRIOR = irt.Prior(theta_sd=5.0, gamma_sd=3.0, sigma_median=0.5, sigma_log_sd=1.0)


def fit(patience: float) -> irt.ExplanatoryFit:
    """40 respondents, 1,000 items, a floor of its own for each."""
    world = irt.simulate(40, 1000, gamma=(0.5,), trials=4, seed=3)
    floors = np.random.default_rng(3).uniform(0.0, 0.5, 1000)
    return irt.fit_explanatory(
        world.successes, world.trials, world.covariates, floors, prior=PRIOR, patience=patience
    )


def test_patience_that_is_enough_changes_nothing() -> None:
    one, other = fit(5.0), fit(500.0)
    assert one.converged
    assert np.array_equal(one.theta, other.theta)
    assert np.array_equal(one.covariance, other.covariance, equal_nan=True)


def test_a_fit_that_is_cut_short_says_so_and_is_the_same_each_time() -> None:
    cut, again, whole = fit(0.2), fit(0.2), fit(5.0)
    assert not cut.converged
    assert "not_converged" in cut.flags
    assert np.array_equal(cut.theta, again.theta)
    assert cut.loglik < whole.loglik
    assert np.isfinite(cut.theta_se).all()


def test_not_one_step_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"longer than 1e-05 s: many respondents .* give patience="):
        fit(1e-5)
    with pytest.raises(ValueError, match="patience must be a number of seconds > 0, got 0"):
        fit(0.0)


def test_persons_and_stages_are_as_patient() -> None:
    world = irt.simulate(3, 500, gamma=(0.5,), trials=4, seed=3)
    data = world.successes, world.trials, world.covariates
    with pytest.raises(ValueError, match="longer than 1e-05 s"):
        irt.fit_stages(*data, prior=PRIOR, patience=1e-5)
    with pytest.raises(ValueError, match="longer than 1e-05 s"):
        irt.fit_persons(world.successes.T, world.trials.T, world.covariates, prior=PRIOR, patience=1e-5)
