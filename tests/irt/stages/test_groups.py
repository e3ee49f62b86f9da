"""Per-group abilities shrink to the common one, and only as far as the data say."""

from __future__ import annotations

import numpy as np
import pytest

from zpd_ray import irt


def fitted(group_sd, seed, n_respondents=1):
    truth = irt.simulate(
        n_respondents, 4000, gamma=(0.8,), sigma=0.6, trials=3, n_groups=10, group_sd=group_sd, seed=seed
    )
    fit = irt.fit_explanatory(truth.successes, truth.trials, truth.covariates)
    return truth, irt.group_abilities(fit, truth.successes, truth.trials, truth.covariates, truth.groups), fit


@pytest.mark.parametrize("n_respondents", [1, 3])
def test_group_abilities_are_recovered_with_honest_standard_errors(n_respondents):
    z, taus = [], []
    for seed in range(4):
        truth, found, _ = fitted(0.5, seed, n_respondents)
        z.append(((found.theta - truth.group_theta) / found.se).ravel())
        taus.append(found.tau)
    assert 0.8 < np.sqrt(np.mean(np.concatenate(z) ** 2)) < 1.25
    assert np.mean(taus) == pytest.approx(0.5, abs=0.15)


def test_groups_that_do_not_differ_become_one():
    truth, found, fit = fitted(0.0, 2)
    assert found.tau < 0.1
    assert np.ptp(found.theta) < 0.1
    assert found.common == pytest.approx(fit.theta, abs=0.01)
    assert abs(found.common[0] - truth.theta[0]) < 4 * found.common_se[0]


def test_small_groups_shrink_more_than_large_ones():
    truth = irt.simulate(1, 3000, sigma=0.5, trials=2, seed=5)
    groups = np.where(np.arange(3000) < 12, "small", "large")
    s = truth.successes.copy()
    s[0, :12] = 2  # all right
    fit = irt.fit_explanatory(s, truth.trials, truth.covariates)
    found = irt.group_abilities(fit, s, truth.trials, truth.covariates, groups, tau=0.5)
    assert np.isfinite(found.theta).all()
    assert found.se[0, 1] > 3 * found.se[0, 0]
    assert 0.2 < found.theta[0, 1] - found.common[0] < 2.0


def test_wrong_shapes_are_refused():
    truth, _, fit = fitted(0.3, 0)
    with pytest.raises(ValueError, match="groups"):
        irt.group_abilities(fit, truth.successes, truth.trials, truth.covariates, truth.groups[:5])


def test_three_items_do_not_send_slope_and_spread_to_infinity():
    prior = irt.Prior(theta_sd=5.0, gamma_mean=1.0, gamma_sd=3.0, sigma_log_sd=1.0)
    s, k, x = np.array([[2, 0, 2]]), np.full((1, 3), 2), np.array([[-1.0], [0.2], [0.8]])
    fit = irt.fit_explanatory(s, k, x, prior=prior)
    found = irt.group_abilities(fit, s, k, x, np.arange(3), prior=prior)
    assert np.isfinite(found.theta).all()
    assert abs(found.gamma[0] - fit.gamma[0]) < 3
    assert 0.1 <= found.sigma < 5
