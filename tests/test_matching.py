"""ZPDScore: where it is largest, its limits, its expectation over a posterior, the guessing floor."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.special import expit, logit
from scipy.stats import norm

from zpd_ray.irt.quadrature import HERMITE_NODES, HERMITE_WEIGHTS
from zpd_ray.matching import MAX_SCORE, probability, zpd_score, zpd_score_over

GRID = np.linspace(-8, 8, 3201)  # steps of 0.005 logits


@pytest.mark.parametrize("theta", [-2.0, 0.0, 1.3])
@pytest.mark.parametrize("b_sd", [0.0, 0.8, 2.0])
def test_largest_where_difficulty_equals_ability(theta: float, b_sd: float) -> None:
    assert GRID[np.argmax(zpd_score(theta, GRID, b_sd))] == pytest.approx(theta, abs=0.006)


@pytest.mark.parametrize("target_p", [0.1, 0.3, 0.5, 0.8])
def test_target_p_moves_the_centre(target_p: float) -> None:
    best = GRID[np.argmax(zpd_score(0.4, GRID, target_p=target_p))]
    assert expit(0.4 - best) == pytest.approx(target_p, abs=0.002)
    assert zpd_score(0.4, 0.4 - logit(target_p), target_p=target_p)[0] == pytest.approx(MAX_SCORE)


def test_without_uncertainty_it_is_p_times_one_minus_p() -> None:
    p = probability(0.7, GRID)
    assert_allclose(zpd_score(0.7, GRID), p * (1 - p), rtol=1e-12)


@pytest.mark.parametrize("b_sd", [0.0, 0.5, 3.0])
def test_symmetric_about_ability_and_falling_on_both_sides(b_sd: float) -> None:
    distance = np.linspace(0, 6, 200)
    above, below = zpd_score(0.5, 0.5 + distance, b_sd), zpd_score(0.5, 0.5 - distance, b_sd)
    assert_allclose(above, below, rtol=1e-9)
    assert (np.diff(above) < 0).all()


def test_depends_on_the_difference_alone() -> None:
    assert_allclose(zpd_score(0.0, GRID, 0.7, 0.2), zpd_score(3.0, GRID + 3.0, 0.7, 0.2), rtol=1e-9)


def test_between_zero_and_a_quarter_whatever_comes_in() -> None:
    rng = np.random.default_rng(0)
    for target_p in (0.05, 0.5, 0.95):
        score = zpd_score(
            0.0, rng.uniform(-50, 50, 2000), rng.uniform(0, 5, 2000), rng.uniform(0, 0.9, 2000), target_p
        )
        assert (score >= 0).all()
        assert (score <= MAX_SCORE * (1 + 1e-12)).all()


@pytest.mark.parametrize("b", [-1000.0, 1000.0, -1e6, 1e6])
def test_items_beyond_reach_score_zero_without_a_warning(b: float) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert zpd_score(0.0, b, 1.0)[0] == pytest.approx(0.0, abs=1e-12)


def _expected(theta: float, b: float, sd: float) -> float:
    def density(x: float) -> float:
        p = expit(theta - x)
        return float(p * (1 - p) * norm.pdf(x, b, sd))

    return quad(density, b - 12 * sd, b + 12 * sd, points=[b, theta], limit=400)[0]


@pytest.mark.parametrize(("sd", "tolerance"), [(0.2, 1e-10), (0.5, 1e-8), (1.0, 1e-5), (2.0, 1e-3)])
def test_expectation_over_the_posterior_agrees_with_dense_quadrature(sd: float, tolerance: float) -> None:
    for b in (-3.0, -0.4, 0.0, 1.7, 4.0):
        assert zpd_score(0.2, b, sd)[0] == pytest.approx(_expected(0.2, b, sd), abs=tolerance)


def test_expectation_over_the_posterior_agrees_with_monte_carlo() -> None:
    p = expit(-np.random.default_rng(5).normal(1.0, 0.9, 400_000))
    draws = p * (1 - p)
    assert zpd_score(0.0, 1.0, 0.9)[0] == pytest.approx(draws.mean(), abs=4 * draws.std() / 400_000**0.5)


def test_uncertainty_lowers_the_centre_and_lifts_the_tails() -> None:
    assert zpd_score(0.0, 0.0, 1.0)[0] < zpd_score(0.0, 0.0)[0]
    assert zpd_score(0.0, 5.0, 1.5)[0] > zpd_score(0.0, 5.0)[0]


@pytest.mark.parametrize("c", [0.1, 0.25, 0.5])
def test_guessing_has_the_maximum_of_lord_1980(c: float) -> None:
    """Birnbaum (1968) in Lord (1980), Applications of IRT, equations 10-4 and 10-6, with D a = 1."""
    best = GRID[np.argmax(zpd_score(0.0, GRID, guess=c, criterion="information"))]
    assert -best == pytest.approx(np.log((1 + np.sqrt(1 + 8 * c)) / 2), abs=0.006)
    largest = (1 - 20 * c - 8 * c**2 + (1 + 8 * c) ** 1.5) / (8 * (1 - c) ** 2)
    assert zpd_score(0.0, GRID, guess=c, criterion="information").max() == pytest.approx(largest, rel=1e-4)


def test_guessing_is_the_squared_slope_over_the_variance() -> None:
    theta, c, h = 0.3, 0.25, 1e-5
    slope = (probability(theta + h, GRID, c) - probability(theta - h, GRID, c)) / (2 * h)
    p = probability(theta, GRID, c)
    found = zpd_score(theta, GRID, guess=c, criterion="information")
    assert_allclose(found, slope**2 / (p * (1 - p)), rtol=1e-5, atol=1e-12)


def test_guessing_lowers_the_information_of_every_item() -> None:
    assert (zpd_score(0.0, GRID, guess=0.25, criterion="information") < zpd_score(0.0, GRID)).all()


@pytest.mark.parametrize("b_sd", [0.0, 0.7])
@pytest.mark.parametrize("c", [0.1, 0.25, 0.5])
def test_with_a_floor_it_is_p_times_one_minus_p_all_the_same(c: float, b_sd: float) -> None:
    for theta, b in ((0.3, 0.0), (0.3, 2.0), (-4.0, 1.0)):

        def integrand(x: float, theta: float = theta, b: float = b) -> float:
            p = c + (1 - c) * expit(theta - x)
            return float(p * (1 - p) * norm.pdf(x, b, b_sd))

        p = c + (1 - c) * expit(theta - b)
        expected = quad(integrand, b - 9 * b_sd, b + 9 * b_sd)[0] if b_sd else p * (1 - p)
        assert zpd_score(theta, b, b_sd, c)[0] == pytest.approx(expected, abs=1e-7)
    assert zpd_score(-50.0, 0.0, 0.0, c)[0] == pytest.approx(c * (1 - c))  # guessed, and no more
    assert zpd_score(-50.0, 0.0, 0.0, c, criterion="information")[0] == pytest.approx(0.0, abs=1e-12)


def test_probability_has_its_limits() -> None:
    assert_allclose(probability(0.0, [-1e3, 0.0, 1e3]), [1.0, 0.5, 0.0], atol=1e-15)
    assert_allclose(probability(0.0, [-1e3, 0.0, 1e3], 0.25), [1.0, 0.625, 0.25], atol=1e-15)


def test_scalars_broadcast_to_one_dimension() -> None:
    assert zpd_score(0.0, 1.0).shape == (1,)
    assert zpd_score(0.0, np.zeros(4), 0.5, 0.2).shape == (4,)


@pytest.mark.parametrize("criterion", ["p(1-p)", "information"])
@pytest.mark.parametrize("target_p", [0.5, 0.7])
def test_the_score_over_a_distribution_is_its_weighted_mean(criterion: str, target_p: float) -> None:
    b = np.array([[-2.0, 0.0, 2.0], [1.0, 1.5, 4.0]])
    weights, guess = np.array([[0.5, 0.0, 0.5], [0.2, 0.3, 0.5]]), np.array([0.0, 0.25])
    found = zpd_score_over(0.3, b, weights, guess, target_p, criterion)
    for row in range(2):
        each = zpd_score(0.3, b[row], 0.0, guess[row], target_p, criterion)
        assert found[row] == pytest.approx(weights[row] @ each, rel=1e-12)


def test_without_a_floor_the_score_has_the_bits_of_the_sum_over_the_nodes() -> None:
    """A selection must not change by how the sum is taken."""
    rng = np.random.default_rng(6)
    b, sd = rng.normal(0, 3, 9000), rng.uniform(0, 2, 9000)
    b[:3] = -1e3, 1e3, 0.0
    total = np.zeros(9000)
    for node, weight in zip(HERMITE_NODES, HERMITE_WEIGHTS, strict=True):
        e = np.exp(np.clip(-((0.3 - b) - sd * node), -300.0, 300.0))
        star = 1.0 / (1.0 + e)
        total += weight * (e * star * star)
    assert zpd_score(0.3, b, sd).tobytes() == total.tobytes()
