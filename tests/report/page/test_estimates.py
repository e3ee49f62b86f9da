"""Intervals, calibration and group abilities against what is known otherwise."""

from __future__ import annotations

from dataclasses import replace
from html import escape

import numpy as np
import pytest
from scipy.stats import binomtest

from zpd_ray import irt
from zpd_ray.ability import Ability
from zpd_ray.calibration import Calibration, Fit
from zpd_ray.difficulty import bin_of, log_nll_of_bin
from zpd_ray.matching import probability
from zpd_ray.report.page.estimates import calibration, group_thetas, wilson
from zpd_ray.report.page.sample import cut


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (3, 10), (420, 1000)])
def test_wilson_is_that_of_scipy(right: int, n: int) -> None:
    known = binomtest(right, n).proportion_ci(0.95, "wilson")
    assert wilson(right / n, n) == pytest.approx((known.low, known.high), abs=1e-5)


def outcomes(p: np.ndarray, s: np.ndarray, k: np.ndarray) -> np.ndarray:
    """One bin, as a tally sums it."""
    sums = np.array([np.ones_like(p), p * k, k, s, s * s, s * k, k * k], dtype=np.float64).sum(axis=1)
    return np.stack([sums, np.zeros(7)])


def test_rollouts_that_always_agree_count_as_one_answer() -> None:
    rng = np.random.default_rng(0)
    p, k = np.full(400, 0.6), np.full(400, 8)
    alone, together = rng.binomial(8, p), 8 * rng.binomial(1, p)
    (of_alone,), (of_together,) = (calibration(outcomes(p, s, k)) for s in (alone, together))
    assert of_together.observed == pytest.approx(together.sum() / 3200)
    assert (of_together.low, of_together.high) == pytest.approx(wilson(of_together.observed, 400), abs=1e-3)
    assert (of_alone.low, of_alone.high) == pytest.approx(wilson(of_alone.observed, 3200), abs=5e-3)


def fit(theta: float, gamma: float, sigma: float) -> Fit:
    """A fit of stage 0 whose z is log NLL."""
    ability = Ability(theta, 0.01, [], gamma, sigma, 0.1, 0)
    place = {"location": 0.0, "scale": 1.0, "origin": 0.0, "residual_nodes": [], "residual_weights": []}
    own = Calibration(0, "explanatory", gamma, None, sigma, None, **place)
    return Fit(0, ability, own, 0.0, 0.0, 0, 0, 0, [])


def test_a_group_that_is_answered_better_is_told_by_how_much() -> None:
    rng = np.random.default_rng(1)
    n, away = 6000, np.array([-0.8, 0.0, 0.8])
    group, nll = rng.integers(0, 3, n), np.exp(rng.normal(0.0, 1.0, n))
    b = log_nll_of_bin(bin_of(nll)) + rng.normal(0.0, 0.5, n)
    right = rng.binomial(4, probability(0.3, b - away[group]))
    zeros, four = np.zeros(n, np.int64), np.full(n, 4)
    answers = irt.Counts.of(group=group, nll_bin=bin_of(nll), options=zeros, successes=right, trials=four)
    found = group_thetas(answers, fit(0.3, 1.0, 0.5), fit(0.3, 1.0, 0.5), 0.3)
    for g in range(3):
        own = group == g
        assert found[g].items == own.sum()
        assert found[g].share == pytest.approx(right[own].sum() / (4 * own.sum()))
        assert abs(found[g].theta - 0.3 - away[g]) < 4 * found[g].se + 0.03
        assert 0.01 < found[g].se < 0.06
    moved = group_thetas(answers, fit(0.3, 1.0, 0.5), replace(fit(0.3, 1.0, 0.5)), 1.3)
    assert moved[1].theta == pytest.approx(found[1].theta + 1.0, abs=0.02)  # a difference from the common one


def test_a_group_that_is_always_wrong_has_a_finite_ability_with_a_wide_band() -> None:
    n = 300
    group, nll, four = np.repeat([0, 1], n // 2), np.ones(n), np.full(n, 4)
    right = np.where(group == 0, 2, 0)
    zeros = np.zeros(n, np.int64)
    answers = irt.Counts.of(group=group, nll_bin=bin_of(nll), options=zeros, successes=right, trials=four)
    found = group_thetas(answers, fit(0.0, 1.0, 0.5), fit(0.0, 1.0, 0.5), 0.0)
    assert found[1].theta < found[0].theta - 2.0
    assert found[0].se < 0.2 < found[1].se < 2.0


@pytest.mark.parametrize("text", ["plain " * 50, "<&\"'>" * 60, "😀👩‍👩‍👧" * 80, "مرحبا " * 90, "x", ""])
def test_a_text_takes_no_more_bytes_than_it_may(text: str) -> None:
    kept = cut(text, 100)
    start, mark, rest = kept.partition(" [... ")
    assert len(escape(start).encode()) <= 100
    assert text.startswith(start)
    assert (mark == "") == (kept == text)
    if mark:
        assert rest == f"{len(text):,} characters]"
