"""Linking recovers shifts, leaves drifting items out, and its tests hold their level."""

from __future__ import annotations

import numpy as np
import pytest

from zpd_ray import irt


def two_scales(rng, n=200, shift=0.3, drifting=0):
    b = rng.normal(size=n)
    se_old, se_new = rng.uniform(0.05, 0.15, n), rng.uniform(0.05, 0.2, n)
    new = b + shift + se_new * rng.normal(size=n)
    new[:drifting] += 2.0
    return b + se_old * rng.normal(size=n), se_old, new, se_new


def test_shift_has_an_honest_standard_error():
    rng = np.random.default_rng(0)
    links = [irt.link(*two_scales(rng)) for _ in range(400)]
    z = np.array([(found.shift - 0.3) / found.se for found in links])
    assert abs(z.mean()) < 0.2
    assert 0.9 < z.std() < 1.1
    assert 0.45 < np.mean([found.heterogeneity_p for found in links]) < 0.6


def test_drifting_items_are_found_and_do_not_move_the_link():
    found = irt.link(*two_scales(np.random.default_rng(1), drifting=12))
    assert not found.kept[:12].any()
    assert found.kept[12:].mean() > 0.97
    assert abs(found.shift - 0.3) < 3 * found.se
    assert (found.z[:12] > 4).all()


def test_item_drift_holds_its_level():
    rng = np.random.default_rng(2)
    p = np.concatenate([irt.link(*two_scales(rng)).p for _ in range(100)])
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.007)


def test_a_drifting_group_is_told_from_the_others():
    rng = np.random.default_rng(3)
    b, se_b, new, se_new = two_scales(rng)
    groups = np.repeat(["algebra", "history", "law", "logic"], 50)
    new[groups == "law"] += 0.15
    drift = irt.link(b, se_b, new, se_new, groups=groups).groups
    assert drift is not None
    assert drift.group[np.argmin(drift.p)] == "law"
    assert drift.p.min() < 0.001
    assert drift.shift[2] == pytest.approx(0.15, abs=4 * drift.se[2])


def test_responses_to_known_items_hold_their_level_and_show_drift():
    rng = np.random.default_rng(4)
    truth = irt.simulate(1, 3000, sigma=1.0, trials=8, n_groups=3, seed=4)
    sd = np.full(3000, 0.3)
    b_mean = truth.b + sd * rng.normal(size=3000)
    drift = irt.response_drift(
        truth.successes[0], truth.trials[0], float(truth.theta[0]), 0.05, b_mean, sd, groups=truth.groups
    )
    assert 0.02 < np.mean(drift.p < 0.05) < 0.06  # eight trials are discrete: mid-p stays below its level
    assert drift.groups is not None
    assert drift.groups.p.min() > 0.001
    moved = b_mean - 3.0
    assert (
        irt.response_drift(
            truth.successes[0], truth.trials[0], float(truth.theta[0]), 0.05, moved, sd
        ).z.mean()
        > 1.5
    )


def test_linked_stages_share_one_scale():
    """Fixing items at their first-stage difficulties puts a stronger model on the same scale."""
    rng = np.random.default_rng(5)
    truth = irt.simulate(1, 2000, gamma=(0.8,), sigma=0.5, trials=8, seed=6)
    first = irt.fit_explanatory(truth.successes, truth.trials, truth.covariates)
    later = rng.binomial(8, irt.probability(truth.theta[0] + 0.7, 1.0, truth.b))[None]
    ability = irt.ability(later, 1.0, first.b_mean, estimator="ml", trials=truth.trials)
    assert ability.theta[0] - first.theta[0] == pytest.approx(0.7, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.0], [0.1], [0.0], [0.1]), "two common items"),
        (([0.0, 1.0], [0.0, 0.1], [0.0, 1.0], [0.0, 0.1]), "item 0 has no standard error"),
        (([0.0, 1.0], [0.1, 0.1], [0.0], [0.1]), "b_new"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        irt.link(*arguments)
