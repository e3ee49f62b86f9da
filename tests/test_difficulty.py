"""From NLL to difficulty: bins, robust scale, feedback."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from zpd_ray import difficulty
from zpd_ray.difficulty import (
    BINS_PER_UNIT,
    LOG_NLL_RANGE,
    Scale,
    bin_of,
    feedback_difficulty,
    log_nll,
    log_nll_of_bin,
    robust_scale,
    standardise,
)


def test_bins_are_integers_that_never_fall_as_nll_rises() -> None:
    nll = np.concatenate([[0.0], np.geomspace(1e-10, 1e4, 5000)])
    bins = bin_of(nll)
    assert bins.dtype == np.int64
    assert (np.diff(bins) >= 0).all()
    assert bins[-1] > bins[0]


def test_centre_of_a_bin_is_within_half_a_bin_of_what_fell_into_it() -> None:
    nll = np.geomspace(1e-8, 300.0, 4001)
    assert_array_equal(np.abs(log_nll_of_bin(bin_of(nll)) - np.log(nll)) <= 0.5 / BINS_PER_UNIT + 1e-12, True)


def test_nll_of_zero_and_of_infinity_are_clipped_without_a_warning() -> None:
    with np.errstate(all="raise"):
        assert_array_equal(
            log_nll([0.0, 1e30, np.inf]), [LOG_NLL_RANGE[0], LOG_NLL_RANGE[1], LOG_NLL_RANGE[1]]
        )
        assert bin_of(0.0) == LOG_NLL_RANGE[0] * BINS_PER_UNIT
        assert bin_of(np.inf) == LOG_NLL_RANGE[1] * BINS_PER_UNIT


def test_float32_and_float64_of_a_measured_nll_share_a_bin() -> None:
    measured = np.random.default_rng(0).lognormal(size=5000).astype(np.float32)
    assert_array_equal(bin_of(measured), bin_of(measured.astype(np.float64)))


def test_counts_of_bins_add_over_blocks() -> None:
    bins = bin_of(np.random.default_rng(1).lognormal(size=3000))
    bins -= bins.min()
    whole = np.bincount(bins, minlength=bins.max() + 1)
    parts = sum(np.bincount(part, minlength=bins.max() + 1) for part in np.array_split(bins, 7))
    assert_array_equal(parts, whole)


def test_robust_scale_recovers_mean_and_sd_of_a_lognormal_pool() -> None:
    nll = np.exp(np.random.default_rng(2).normal(-0.7, 0.6, 200_000))
    bins, freq = np.unique(bin_of(nll), return_counts=True)
    scale = robust_scale(bins, freq)
    assert scale.location == pytest.approx(-0.7, abs=0.02)
    assert scale.scale == pytest.approx(0.6, abs=0.02)


def test_robust_scale_does_not_depend_on_order_nor_on_how_items_are_blocked() -> None:
    rng = np.random.default_rng(3)
    bins, freq = rng.integers(-300, 100, 500), rng.integers(1, 9, 500)
    merged = np.unique(bins)
    total = np.array([freq[bins == value].sum() for value in merged])
    one_by_one = np.repeat(bins, freq)
    rng.shuffle(one_by_one)
    expected = robust_scale(merged, total)
    assert robust_scale(bins, freq) == expected
    assert robust_scale(bins[::-1], freq[::-1]) == expected
    assert robust_scale(one_by_one, np.ones_like(one_by_one)) == expected


def test_one_outlier_moves_the_robust_scale_by_a_bin_at_most() -> None:
    bins = np.arange(1000)
    moved = robust_scale(np.append(bins, 10**6), np.ones(1001, int))
    still = robust_scale(bins, np.ones(1000, int))
    assert abs(moved.location - still.location) <= 1 / BINS_PER_UNIT
    assert abs(moved.scale - still.scale) <= 2 / BINS_PER_UNIT


@pytest.mark.parametrize("freq", [1, 2, 1000])
def test_a_pool_without_spread_has_scale_one(freq: int) -> None:
    scale = robust_scale([17], [freq])
    assert scale == Scale(float(log_nll_of_bin(17)), 1.0)
    assert standardise(log_nll_of_bin(17), scale) == 0.0


def test_interquartile_range_of_a_normal_is_1_349() -> None:
    from scipy.stats import norm

    assert pytest.approx(norm.ppf(0.75) - norm.ppf(0.25), rel=1e-12) == difficulty.IQR_OF_NORMAL


def test_standardise_is_affine() -> None:
    scale = Scale(-0.5, 0.25)
    assert_allclose(standardise([-0.5, -0.25, 0.0], scale), [0.0, 1.0, 2.0])


def test_feedback_moves_b_up_after_wrong_and_down_after_right_answers() -> None:
    b = feedback_difficulty(np.zeros(3), np.array([0, 2, 4]), np.array([4, 4, 4]), 1.5)
    assert_allclose(b, [1.5, 0.0, -1.5])


def test_feedback_is_z_plus_lambda_times_one_minus_twice_the_share() -> None:
    rng = np.random.default_rng(4)
    z, k = rng.normal(size=50), rng.integers(1, 9, 50)
    s = rng.integers(0, k + 1)
    assert_allclose(feedback_difficulty(z, s, k, 0.7), z + 0.7 * (1 - 2 * s / k), rtol=1e-14)


def test_feedback_of_strength_zero_or_of_no_rollouts_leaves_z() -> None:
    z = np.array([-1.0, 0.0, 2.0])
    assert_array_equal(feedback_difficulty(z, [0, 1, 1], [1, 1, 2], 0.0), z)
    assert_array_equal(feedback_difficulty(z, [0, 0, 0], [0, 0, 0], 3.0), z)
