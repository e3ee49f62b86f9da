"""Abilities over stages on one scale."""

import warnings

import numpy as np

from zpd_ray import irt


def test_all_right_without_a_prior_is_infinite_with_an_infinite_error_and_no_warning():
    rng = np.random.default_rng(895)
    successes = np.array([[1, 1], [1, 0], [0, 1], [1, 1]])
    prior = irt.Prior(theta_sd=np.inf, sigma_median=0.02, sigma_log_sd=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = irt.fit_stages(
            successes, np.ones((4, 2), int), np.zeros((2, 0)), rng.uniform(0.0, 0.5, 2), prior=prior
        )
    assert found.theta[[0, 3]].tolist() == [np.inf, np.inf]
    assert found.theta_se[[0, 3]].tolist() == [np.inf, np.inf]
    assert "all_right" in found.flags
