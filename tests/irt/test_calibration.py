"""Simulation: intervals cover the truth as often as they say, and abilities are not stretched."""

from __future__ import annotations

import numpy as np
import pytest

from zpd_ray import irt


def coverage(n_fits: int, n_respondents: int, n_items: int, trials: int, seed: int) -> float:
    """Share of nominal 95 % intervals of theta that hold the truth."""
    inside = []
    for index in range(n_fits):
        truth = irt.simulate(
            n_respondents, n_items, gamma=(0.8,), sigma=0.6, trials=trials, seed=seed + index
        )
        # the truth counts difficulty from covariates of 0, where the prior mean of b is 0
        fit = irt.fit_explanatory(
            truth.successes, truth.trials, truth.covariates, origin=[0.0], prior=irt.Prior(sigma_median=0.6)
        )
        inside.append(np.abs(fit.theta - truth.theta) < 1.959964 * fit.theta_se)
    return float(np.mean(inside))


@pytest.mark.parametrize(("n_respondents", "trials"), [(16, 1), (1, 1), (1, 4)])
def test_intervals_cover_the_truth_in_short(n_respondents, trials):
    n_fits = 30 if n_respondents > 1 else 120
    assert coverage(n_fits, n_respondents, 100, trials, seed=0) == pytest.approx(0.95, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("n_respondents", "trials", "n_fits"), [(16, 1, 500), (1, 1, 5000), (1, 4, 5000)])
def test_intervals_cover_the_truth(n_respondents, trials, n_fits):
    # 500 fits of one respondent leave a chance error of 1 %; with 5000 the band of 94 to 96 % is a real test
    assert 0.94 <= coverage(n_fits, n_respondents, 300, trials, seed=0) <= 0.96


@pytest.mark.parametrize("gamma", [(), (0.8,)])
def test_abilities_are_not_stretched(gamma):
    truth = irt.simulate(16, 100_000, gamma=gamma, sigma=1.0, seed=1)
    fit = irt.fit_explanatory(truth.successes, truth.trials, truth.covariates)
    slope, _ = np.polyfit(truth.theta, fit.theta, 1)
    assert slope == pytest.approx(1.0, abs=0.005)
    slope_b, _ = np.polyfit(fit.b_mean, truth.b, 1)  # posterior means are shrunk: truth on them has slope 1
    assert slope_b == pytest.approx(1.0, abs=0.01)


def test_bitwise_equal_fits_whatever_the_blocks():
    rng = np.random.default_rng(2)
    truth = irt.simulate(1, 30_000, gamma=(0.8,), sigma=0.6, trials=4, seed=2)
    bins = np.floor(truth.covariates[:, 0] * 64).astype(np.int64)
    columns = {
        "bin": bins,
        "group": truth.groups,
        "successes": truth.successes[0].astype(np.int64),
        "trials": truth.trials[0].astype(np.int64),
    }
    fits = []
    for n_blocks in (1, 3, 11):
        order = rng.permutation(bins.size)
        cuts = np.sort(rng.integers(0, bins.size, n_blocks - 1))
        parts = [
            irt.Counts.of(**{name: c[rows] for name, c in columns.items()}) for rows in np.split(order, cuts)
        ]
        counts = irt.Counts.merge([parts[i] for i in rng.permutation(len(parts))])
        fits.append(
            irt.fit_explanatory(
                counts["successes"][None],
                counts["trials"][None],
                (counts["bin"][:, None] + 0.5) / 64,
                freq=counts.freq,
            )
        )
    for fit in fits[1:]:
        assert fit.theta.tobytes() == fits[0].theta.tobytes()
        assert fit.gamma.tobytes() == fits[0].gamma.tobytes()
        assert fit.covariance.tobytes() == fits[0].covariance.tobytes()
        assert (fit.sigma, fit.loglik, fit.grad_norm) == (fits[0].sigma, fits[0].loglik, fits[0].grad_norm)
    assert fits[0].gamma == pytest.approx([0.8], abs=0.02)
