"""A fit that would take too long ends, says so, and ends at the same place however fast the machine is."""

from __future__ import annotations

import warnings

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
    with pytest.raises(ValueError, match=r"longer than 1e-05 s: .* give patience="):
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


def test_item_parameters_and_what_explains_them_too() -> None:
    world = irt.simulate(100, 60, "2pl", gamma=(0.5,), missing=0.2, seed=3)
    for model, little in {"1pl": 0.003, "2pl": 0.01}.items():
        cut, whole = (irt.fit(world.successes, model, trials=world.trials, patience=p) for p in (little, 5.0))
        assert "not_converged" in cut.flags
        assert whole.converged
        assert cut.loglik < whole.loglik
        with pytest.raises(ValueError, match="longer than 1e-05 s"):
            irt.fit(world.successes, model, trials=world.trials, patience=1e-5)
    with pytest.raises(ValueError, match="longer than 1e-05 s"):
        irt.fit_lltm(world.successes, world.covariates, trials=world.trials, patience=1e-5)


def test_covariates_of_any_unit_explain_as_well() -> None:
    world = irt.simulate(300, 60, gamma=(0.5,), trials=4, seed=3)
    one = irt.fit_lltm(world.successes, world.covariates, trials=world.trials)
    small = irt.fit_lltm(world.successes, 1e-8 * world.covariates, trials=world.trials)
    assert one.converged
    assert small.converged
    np.testing.assert_allclose(1e-8 * small.gamma, one.gamma, rtol=1e-6)
    np.testing.assert_allclose(1e-8 * small.gamma_se, one.gamma_se, rtol=1e-6)


def test_a_slope_of_nothing_is_flagged_and_no_warning() -> None:
    """Two respondents and two items that say nothing of a slope."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flat = irt.fit(np.array([[1, 0], [0, 1]]), "1pl")
    assert "theta_sd_zero" in flat.flags


@pytest.mark.parametrize("patience", [0.001, 0.002, 0.004, 0.008, 0.012, 0.016, 0.02, 1.0])
def test_abilities_integrated_over_sigma_are_whole_or_say_so(patience: float) -> None:
    """One response an item: theta is a mixture of fits, any of which may be cut short."""
    world = irt.simulate(1, 500, gamma=(0.5,), seed=3)
    data = world.successes, world.trials, world.covariates
    whole = irt.fit_stages(*data, prior=PRIOR, patience=100.0)
    refused = ""
    try:
        found = irt.fit_stages(*data, prior=PRIOR, patience=patience)
    except ValueError as error:
        refused = str(error)
    if refused:
        assert "give patience=" in refused
    else:
        assert "not_converged" in found.flags or np.array_equal(found.theta_se, whole.theta_se)


def test_groups_are_whole_or_say_so() -> None:
    world = irt.simulate(3, 600, gamma=(0.5,), trials=4, seed=3)
    data = world.successes, world.trials, world.covariates
    fit_of_all, groups = irt.fit_explanatory(*data, prior=PRIOR), np.arange(600) % 6
    whole = irt.group_abilities(fit_of_all, *data, groups, patience=100.0)
    cut = irt.group_abilities(fit_of_all, *data, groups, patience=0.1)
    assert "not_converged" not in whole.flags
    assert "not_converged" in cut.flags
    with pytest.raises(ValueError, match="give patience="):
        irt.group_abilities(fit_of_all, *data, groups, patience=1e-5)
