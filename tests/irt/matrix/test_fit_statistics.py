"""Infit and outfit: expected values under the model, sensitivity to misfit, a table worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from zpd_ray import irt


def test_a_table_worked_by_hand():
    right = np.array([[1, 0], [1, 1]])
    p = irt.probability([0.0, 1.0], 1.0, [-0.5, 0.5])
    v = p * (1 - p)
    found = irt.fit_statistics(right, [0.0, 1.0], 1.0, [-0.5, 0.5])
    assert found.items.outfit == pytest.approx(((right - p) ** 2 / v).mean(axis=0))
    assert found.items.infit == pytest.approx(((right - p) ** 2).sum(axis=0) / v.sum(axis=0))
    assert found.respondents.outfit == pytest.approx(((right - p) ** 2 / v).mean(axis=1))


@pytest.mark.parametrize("trials", [1, 5])
def test_mean_squares_are_one_and_z_standard_normal_under_the_model(trials):
    truth = irt.simulate(800, 80, "3pl", seed=0, trials=trials, missing=0.1)
    found = irt.fit_statistics(truth.successes, truth.theta, truth.a, truth.b, truth.c, trials=truth.trials)
    for side in (found.items, found.respondents):
        assert side.infit.mean() == pytest.approx(1.0, abs=0.01)
        assert side.outfit.mean() == pytest.approx(1.0, abs=0.02)
        assert side.infit_z.mean() == pytest.approx(0.0, abs=0.25)
        assert side.infit_z.std() == pytest.approx(1.0, abs=0.2)


def test_a_guessing_respondent_and_a_steep_item_stand_out():
    truth = irt.simulate(500, 60, seed=1)
    s = truth.successes.copy()
    s[0] = truth.b > np.median(truth.b)  # right on the hard half, wrong on the easy one
    s[:, 3] = truth.theta > truth.b[3]
    theta = irt.ability(s, 1.0, truth.b, estimator="wle").theta
    found = irt.fit_statistics(s, theta, 1.0, truth.b)
    assert found.respondents.outfit_z[0] > 2.5
    assert found.items.infit_z[3] < -4
    assert found.items.infit[3] < 0.8


def test_likelihood_ratio_holds_its_level_and_finds_unequal_slopes():
    p = []
    for seed in range(30):
        s = irt.simulate(400, 6, "1pl", seed=seed).responses
        p.append(irt.compare(irt.fit(s, "1pl"), irt.fit(s, "2pl")).p)
    assert 0.3 < np.mean(p) < 0.7
    unequal = irt.simulate(3000, 10, "2pl", seed=0).responses
    assert irt.compare(irt.fit(unequal, "1pl"), irt.fit(unequal, "2pl")).p < 1e-6


def test_models_that_are_not_nested_are_refused():
    s = irt.simulate(200, 6, seed=3).responses
    one, two, conditional = irt.fit(s, "1pl"), irt.fit(s, "2pl"), irt.fit(s, "rasch", estimator="cml")
    with pytest.raises(ValueError, match="not nested"):
        irt.compare(two, one)
    with pytest.raises(ValueError, match="not comparable"):
        irt.compare(conditional, two)
