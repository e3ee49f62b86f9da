"""Abilities: published tables, agreement of weighted and repeated items, limits."""

from __future__ import annotations

import numpy as np
import pytest

from tests.irt.conftest import reference
from zpd_ray.irt import ability, information


@pytest.mark.parametrize("name", ["lsat6", "verbagg"])
@pytest.mark.parametrize("estimator", ["eap", "map", "wle", "ml"])
def test_rasch_abilities_against_mirt(name, estimator):
    known = reference(name)
    model, table = known["mml_rasch_freevar_mirt"], known["mml_rasch_person_mirt"]
    n = len(model["b"])
    scores = np.tril(np.ones((n + 1, n)), -1)
    found = ability(scores, 1.0, model["b"], estimator=estimator, theta_sd=model["theta_var"] ** 0.5)
    theta = np.array([np.nan if v is None else v for v in table[estimator.upper()]])
    se = np.array([np.nan if v is None else v for v in table["SE_" + estimator.upper()]])
    there = np.isfinite(theta)
    np.testing.assert_allclose(found.theta[there], theta[there], atol=1e-4)
    np.testing.assert_allclose(found.se[there], se[there], atol=1e-3)
    assert np.isinf(found.theta[~there]).all()


def test_2pl_eap_by_pattern_against_mirt():
    known = reference("lsat6")
    table, model = known["mml_2pl_eap_by_pattern"], known["mml_2pl_mirt"]
    patterns = np.array([[int(digit) for digit in pattern] for pattern in table["pattern"]])
    found = ability(patterns, model["a"], model["b"])
    np.testing.assert_allclose(found.theta, table["EAP"], atol=1e-6)
    np.testing.assert_allclose(found.se, table["SE"], atol=1e-6)


@pytest.mark.parametrize("estimator", ["eap", "map", "wle"])
def test_extreme_scores_get_finite_abilities(estimator):
    found = ability([[1, 1, 1], [0, 0, 0]], 1.0, [-1.0, 0.0, 1.0], estimator=estimator)
    assert found.flags == ("all_right", "all_wrong")
    assert np.isfinite(found.theta).all()
    assert np.isfinite(found.se).all()
    assert found.theta[0] == pytest.approx(-found.theta[1])


@pytest.mark.parametrize("estimator", ["eap", "map", "wle", "ml"])
@pytest.mark.parametrize("c", [None, 0.2])
def test_trials_and_frequencies_stand_for_repeated_items(estimator, c):
    b = np.array([-1.0, 0.0, 1.0])
    freq, trials, right = np.array([3, 1, 2]), np.array([[2, 3, 1]]), np.array([[2, 2, 0]])
    short = ability(right, 1.2, b, c, estimator, trials=trials, freq=freq)
    each = [
        np.repeat([1, 0], [f * s, f * (k - s)]) for f, s, k in zip(freq, right[0], trials[0], strict=True)
    ]
    long = ability(np.concatenate(each)[None], 1.2, np.repeat(b, freq * trials[0]), c, estimator)
    assert short.theta == pytest.approx(long.theta, abs=1e-7)
    assert short.se == pytest.approx(long.se, abs=1e-5)


def test_wle_solves_its_equation_for_items_far_apart():
    a, b = np.array([1.0, 2.0, 0.5]), np.array([-5.0, 0.0, 5.0])
    found = ability(np.array([[1, -1, 0], [1, 1, 1], [0, 0, -1]], np.int8), a, b, estimator="wle")
    seen, right = np.array([[1, 0, 1], [1, 1, 1], [1, 1, 0]]), np.array([[1, 0, 0], [1, 1, 1], [0, 0, 0]])
    p = 1 / (1 + np.exp(-a * (found.theta[:, None] - b)))
    info, warm = (seen * p * (1 - p)) @ a**2, (seen * p * (1 - p) * (1 - 2 * p)) @ a**3
    np.testing.assert_allclose((seen * (right - p)) @ a + warm / (2 * info), 0.0, atol=1e-7)
    assert found.flags == ("", "all_right", "all_wrong")


def test_missing_marks_are_equivalent():
    a = ability(np.array([[1, -1, 0]], np.int8), 1.0, [-1.0, 0.5, 1.0])
    b = ability([[1, np.nan, 0]], 1.0, [-1.0, 0.5, 1.0])
    assert a.theta == pytest.approx(b.theta)
    assert a.theta == pytest.approx(ability([[1, 0]], 1.0, [-1.0, 1.0]).theta)


def test_narrow_posteriors_are_integrated_exactly():
    rng = np.random.default_rng(0)
    b = rng.normal(size=20_000)
    right = (rng.random((2, b.size)) < 1 / (1 + np.exp(b - np.array([[0.3], [-2.0]])))).astype(int)
    eap, ml = (ability(right, 1.0, b, estimator=estimator, theta_sd=5.0) for estimator in ("eap", "ml"))
    np.testing.assert_allclose(eap.theta, ml.theta, atol=1e-3)
    np.testing.assert_allclose(eap.se, ml.se, rtol=1e-3)


def test_information_peaks_at_the_difficulty_and_falls_with_guessing():
    theta = np.linspace(-4, 4, 161)
    rasch = information(theta, 1.0, 0.5)
    assert theta[rasch.argmax()] == pytest.approx(0.5)
    assert rasch.max() == pytest.approx(0.25)
    guessing = information(theta, 1.0, 0.5, 0.2)
    assert (guessing < rasch).all()
    assert theta[guessing.argmax()] > 0.5
    assert information([0.0, 1.0], [1.0, 2.0, 1.0], [0.0, 0.0, 0.0]).shape == (2, 3)


@pytest.mark.parametrize("slope", [0.02, 1.0])
def test_mode_far_from_the_items_solves_its_equation(slope):
    """Flat items still tell something far off: with a slope of .02, 2,000 logits below them."""
    b, c, trials = np.array([-1.0, 0.0, 1.0]), 0.5, np.full((2, 3), 10_000_000)
    right = np.array([[2_000_000, 3_000_000, 4_000_000], [6_000_000, 7_000_000, 5_500_000]])
    found = ability(right, slope, b, c, "map", trials=trials, theta_sd=50.0)
    star = 1 / (1 + np.exp(-slope * (found.theta[:, None] - b)))
    p = c + (1 - c) * star
    parts = slope * star * (right - trials * p) / p, found.theta / 50.0**2
    np.testing.assert_allclose(parts[0].sum(axis=1) - parts[1], 0.0, atol=1e-3)
    assert found.flags == ("", "")


def test_hardly_better_than_guessing_has_a_finite_maximum():
    """One item: P = c + (1 - c) sigmoid(theta - b) is the share that was right."""
    found = ability([[250_200]], 1.0, [0.5], 0.25, "ml", trials=[[1_000_000]])
    star = 0.0002 / 0.75
    assert found.flags == ("",)
    assert found.theta[0] == pytest.approx(0.5 + np.log(star / (1 - star)), abs=1e-4)


def test_no_better_than_guessing_is_at_the_floor():
    b, trials = np.array([-1.0, 0.0, 1.0]), np.full((3, 3), 1000)
    right = np.array([[250, 240, 249], [10, 20, 0], [600, 500, 400]])
    found = ability(right, [0.3, 1.0, 2.0], b, 0.25, "ml", trials=trials)
    assert found.flags == ("at_floor", "at_floor", "")
    assert found.theta[:2].tolist() == [-np.inf, -np.inf]
    assert np.isfinite(found.theta[2])


@pytest.mark.parametrize(("n_items", "k", "c"), [(3, 50, 0.5), (20, 1, 0.25), (1, 1, 0.0)])
def test_mean_under_a_wide_prior_is_the_integral(n_items, k, c):
    """With guessing the likelihood has a flat side, which a window about the mode would cut off."""
    rng = np.random.default_rng(31)
    a, b, sd = np.exp(0.5 * rng.normal(size=n_items)), rng.normal(size=n_items), 50.0
    star = 1 / (1 + np.exp(-a * (2.0 * rng.normal(size=(6, 1)) - b)))
    trials = np.full((6, n_items), k)
    right = rng.binomial(trials, c + (1 - c) * star)
    found = ability(right, a, b, np.full(n_items, c), "eap", trials=trials, theta_sd=sd)
    grid = np.linspace(-600.0, 600.0, 60_001)
    logit = a[:, None] * (grid - b[:, None])
    wrong = np.log1p(-c) - np.logaddexp(0.0, logit)
    with np.errstate(divide="ignore"):
        log = right @ np.logaddexp(np.log(c), np.log1p(-c) - np.logaddexp(0.0, -logit))
    log += (trials - right) @ wrong - 0.5 * (grid / sd) ** 2
    weights = np.exp(log - log.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    mean = weights @ grid
    spread = np.sqrt(weights @ grid**2 - mean**2)
    np.testing.assert_allclose(found.theta, mean, atol=1e-3 * spread.max())
    np.testing.assert_allclose(found.se, spread, rtol=1e-3)
