"""Simulated data have the properties they were asked for."""

from __future__ import annotations

import numpy as np
import pytest

from zpd_ray import irt


def test_truth_and_responses_agree():
    truth = irt.simulate(50, 4000, "3pl", seed=0, missing=0.25, trials=4)
    seen = truth.trials > 0
    assert 1 - seen.mean() == pytest.approx(0.25, abs=0.01)
    p = irt.probability(truth.theta, truth.a, truth.b, truth.c)
    assert truth.successes[seen].mean() / 4 == pytest.approx(p[seen].mean(), abs=0.005)
    assert (truth.successes[~seen] == 0).all()


def test_same_seed_same_data():
    one, two = (irt.simulate(5, 50, "2pl", seed=3, gamma=(0.5,)) for _ in range(2))
    assert np.array_equal(one.responses, two.responses)
    assert np.array_equal(one.b, two.b)


def test_covariates_explain_what_they_should():
    truth = irt.simulate(2, 50_000, gamma=(0.5, -0.3), sigma=0.4, person_gamma=(1.0,), seed=1)
    assert np.std(truth.b - truth.covariates @ truth.gamma) == pytest.approx(0.4, abs=0.01)
    assert truth.responses.dtype == np.int8
    assert truth.theta.shape == (2,)


def test_responses_with_several_trials_are_refused():
    with pytest.raises(ValueError, match="counts"):
        _ = irt.simulate(2, 3, trials=2).responses
    with pytest.raises(ValueError, match="n_items"):
        irt.simulate(2, 0)
