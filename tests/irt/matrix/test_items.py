"""Item parameters: published tables, agreement of routes to one likelihood, recovery, extremes, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from tests.irt.conftest import lsat6, reference
from zpd_ray import irt
from zpd_ray.irt.matrix import cml, mml, score_curves
from zpd_ray.irt.matrix.mml import Model, Responses

LSAT6, FREQ = lsat6()


def test_lsat6_1pl():
    """Rizopoulos (2006), JSS 17(5): ltm; standard errors of ltm 1.2-0."""
    fit = irt.fit(LSAT6, "1pl", FREQ)
    assert fit.a == pytest.approx(np.full(5, 0.7551346), abs=1e-4)
    assert fit.se_a == pytest.approx(np.full(5, 0.0694333), abs=1e-3)
    assert fit.b == pytest.approx([-3.615267, -1.322421, -0.317631, -1.730090, -2.780172], abs=1e-4)
    assert fit.se_b == pytest.approx([0.326641, 0.142182, 0.097677, 0.169136, 0.251048], abs=1e-3)
    assert fit.loglik == pytest.approx(-2466.9376, abs=1e-3)


def test_lsat6_2pl():
    fit = irt.fit(LSAT6, "2pl", FREQ)
    assert fit.a == pytest.approx([0.825660, 0.722744, 0.890874, 0.688368, 0.656856], abs=1e-4)
    assert fit.b == pytest.approx([-3.358811, -1.370058, -0.279666, -1.866381, -3.125907], abs=1e-4)
    assert fit.se_a == pytest.approx([0.258115, 0.186680, 0.232764, 0.185143, 0.209909], abs=1e-3)
    assert fit.se_b == pytest.approx([0.866472, 0.307491, 0.099623, 0.434318, 0.871222], abs=1e-3)
    assert fit.loglik == pytest.approx(-2466.653377, abs=1e-4)


def test_lsat6_cml():
    fit = irt.fit(LSAT6, "rasch", FREQ, estimator="cml")
    assert fit.b == pytest.approx([-1.2561286, 0.4749060, 1.2359842, 0.1684106, -0.6231723], abs=1e-4)
    assert fit.se_b == pytest.approx([0.104410, 0.069917, 0.068779, 0.072619, 0.085916], abs=1e-3)
    assert fit.loglik == pytest.approx(-1091.56969, abs=1e-4)


def test_lsat6_rasch_is_the_1pl_on_another_scale():
    rasch, one = irt.fit(LSAT6, "rasch", FREQ), irt.fit(LSAT6, "1pl", FREQ)
    assert rasch.theta_sd**2 == pytest.approx(0.57024, abs=1e-4)
    assert 2 * rasch.theta_sd * rasch.se_theta_sd == pytest.approx(0.104864, abs=1e-3)
    assert rasch.b == pytest.approx([-2.730017, -0.998608, -0.239854, -1.306454, -2.099407], abs=1e-4)
    assert rasch.b == pytest.approx(one.b * one.a, abs=1e-8)
    assert rasch.loglik == pytest.approx(one.loglik, abs=1e-8)


@pytest.mark.parametrize(
    ("model", "guess", "key"),
    [
        ("1pl", None, "mml_1pl_common_a_mirt"),
        ("2pl", None, "mml_2pl_mirt"),
        ("3pl", 0.2, "mml_3pl_fixed_g0.2_mirt"),
        ("1pl", 0.2, "mml_1pl_fixed_g0.2_common_a_mirt"),
    ],
)
def test_lsat6_against_the_reference_file(model, guess, key):
    known = reference("lsat6")[key]
    fit = irt.fit(LSAT6, model, FREQ, guess)
    assert fit.a == pytest.approx(known["a"], abs=1e-4)
    assert fit.b == pytest.approx(known["b"], abs=1e-4)
    assert fit.se_a == pytest.approx(known["se_a"], abs=1e-3)
    assert fit.loglik == pytest.approx(known["logLik"], abs=1e-3)


@pytest.mark.parametrize(
    ("model", "estimator", "key", "se"),
    [
        ("rasch", "mml", "mml_rasch_freevar_mirt", "se_d"),
        ("2pl", "mml", "mml_2pl_mirt", None),
        ("rasch", "cml", "cml_eRm", "se_b"),
    ],
)
def test_verbal_aggression_against_the_reference_file(verbagg, model, estimator, key, se):
    responses, _, values = verbagg
    known = values[key]
    fit = irt.fit(responses, model, estimator=estimator)
    assert fit.loglik == pytest.approx(known.get("logLik", known.get("cond_logLik")), abs=1e-3)
    assert fit.b == pytest.approx(known["b"], abs=1e-4)
    if se:
        assert fit.se_b == pytest.approx(known[se], abs=1e-3)
    if model == "2pl":
        assert fit.se_a == pytest.approx(known["se_a"], abs=1e-3)


def small(n=40, m=4, missing=0.0, seed=0, model="2pl"):
    truth = irt.simulate(n, m, model, seed=seed, missing=missing)
    s, k = truth.successes.astype(float), truth.trials.astype(float)
    trials = k if missing else k[0]
    return Responses(s, trials, np.ones(n), s.sum(axis=1), s.sum(axis=0))


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("kind", ["common", "free", "fixed floor", "free floor"])
def test_derivatives_agree_with_differences(kind, missing):
    data = small(missing=missing)
    c = np.full(4, 0.2) if "floor" in kind else np.zeros(4)
    model = Model(4, kind == "common", c, (5.0, 17.0) if kind == "free floor" else None)
    phi = np.array([0.3, -0.5, 0.9, 0.1, 0.8, 1.2, 0.7, 1.0, -1.3, -1.5, -1.0, -1.2])
    phi = phi[: {"common": 5, "free floor": 12}.get(kind, 8)]
    _, gradient, hessian = mml.objective(model, data, phi, True)
    for i, step in enumerate(1e-5 * np.eye(phi.size)):
        above, below = (mml.objective(model, data, phi + sign * step, False) for sign in (1, -1))
        assert gradient[i] == pytest.approx((above[0] - below[0]) / 2e-5, abs=1e-5)
        assert hessian[i] == pytest.approx((above[1] - below[1]) / 2e-5, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("common", [True, False])
def test_score_curves_agree_with_respondent_by_respondent_quadrature(common):
    data = small(200, 6)
    model = Model(6, common, np.zeros(6))
    phi = np.concatenate([np.linspace(-1, 1, 6), [1.1] if common else np.linspace(0.7, 1.4, 6)])
    for one, other in zip(
        mml.objective(model, data, phi, True), score_curves.objective(model, data, phi, True), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-4)


def test_conditional_moments_agree_with_enumeration():
    b = np.array([-1.0, 0.2, 0.5, 1.7])
    patterns = np.array([[int(d) for d in f"{code:04b}"] for code in range(16)])
    for score in (1, 2, 3):
        rows = patterns[patterns.sum(axis=1) == score]
        weight = np.exp(-rows @ b)
        (found,) = cml.tilts(b, np.array([score]))
        log_gamma, mean = found.log_gamma[0], found.means[:, 0]
        diagonal, left, right = found.covariance(np.ones(1))
        covariance = np.diag(diagonal) + left @ right.T
        p = weight / weight.sum()
        assert log_gamma == pytest.approx(np.log(weight.sum()))
        assert mean == pytest.approx(p @ rows)
        assert covariance == pytest.approx(
            (rows * p[:, None]).T @ rows - np.outer(p @ rows, p @ rows), abs=1e-12
        )


@pytest.mark.parametrize("model", ["rasch", "1pl", "2pl", "3pl"])
def test_truth_is_recovered_with_honest_standard_errors(model):
    truth = irt.simulate(4000, 12, model, seed=3, missing=0.1)
    fit = irt.fit(truth.responses, model, guess=None if model != "3pl" else truth.c)
    assert fit.converged
    assert np.sqrt(np.mean(((fit.b - truth.b) / fit.se_b) ** 2)) < 1.6
    if model != "rasch":
        assert np.sqrt(np.mean(((fit.a - truth.a) / fit.se_a) ** 2)) < 1.8
    assert fit.theta_sd == pytest.approx(1.0, abs=0.1)


def test_free_floors_stay_near_their_prior_and_converge():
    truth = irt.simulate(3000, 15, "3pl", seed=4)
    fit = irt.fit(truth.responses, "3pl")
    assert fit.converged
    assert "guess_prior" in fit.flags
    assert np.abs(fit.c - truth.c).mean() < 0.1
    assert np.corrcoef(fit.b, truth.b)[0, 1] > 0.95


def test_items_that_share_a_total_have_their_own_standard_errors():
    """The reduction to classes of items is exact: the dense route gives the same standard errors."""
    truth = irt.simulate(30, 60, seed=5)
    keep = (truth.successes.sum(axis=0) > 0) & (truth.successes.sum(axis=0) < 30)
    s = truth.successes[:, keep].astype(float)
    reduced = irt.fit(s, "rasch")
    data = Responses(s, np.ones(s.shape[1]), np.ones(30), s.sum(axis=1), s.sum(axis=0))
    model = Model(s.shape[1], True, np.zeros(s.shape[1]))
    _, gradient, hessian = mml.objective(model, data, np.append(-reduced.b, reduced.theta_sd), True)
    assert np.abs(gradient).max() < 1e-5
    se = np.sqrt(np.diag(np.linalg.inv(-hessian)))
    assert reduced.se_b == pytest.approx(se[:-1], rel=1e-5)
    assert reduced.se_theta_sd == pytest.approx(se[-1], rel=1e-5)


def test_int8_missing_and_nan_are_one():
    truth = irt.simulate(200, 8, "2pl", seed=6, missing=0.2)
    as_float = np.where(truth.responses < 0, np.nan, truth.responses)
    assert irt.fit(truth.responses, "2pl").b == pytest.approx(irt.fit(as_float, "2pl").b, abs=1e-9)


def test_rollouts_sharpen_the_estimates_and_keep_them_honest():
    truth = irt.simulate(1000, 8, "2pl", seed=0, trials=4)
    first = np.random.default_rng(0).binomial(1, truth.successes / 4)  # one rollout of the four, at random
    many, one = irt.fit(truth.successes, "2pl", trials=truth.trials), irt.fit(first, "2pl")
    assert (many.se_b < one.se_b).all()
    assert np.sqrt(np.mean(((many.b - truth.b) / many.se_b) ** 2)) < 1.6


@pytest.mark.parametrize("estimator", ["mml", "cml"])
def test_extreme_items_get_finite_flagged_estimates(estimator):
    truth = irt.simulate(40, 10, seed=8)
    s = truth.successes.copy()
    s[:, 2], s[:, 5] = 1, 0
    fit = irt.fit(s, "rasch", estimator=estimator)
    assert fit.item_flags[2] == "all_right"
    assert fit.item_flags[5] == "all_wrong"
    assert np.isfinite(fit.b).all()
    assert np.isfinite(fit.se_b).all()
    assert fit.b[2] < fit.b[[0, 1, 3, 4, 6, 7, 8, 9]].min() < fit.b[5]
    inner = irt.fit(np.delete(s, [2, 5], axis=1), "rasch", estimator=estimator)
    assert np.delete(fit.b, [2, 5]) == pytest.approx(inner.b, abs=1e-6)
    assert fit.loglik == pytest.approx(inner.loglik, abs=1e-6)


def test_perfectly_ordered_data_are_flagged():
    assert "weakly_identified" in irt.fit(np.tril(np.ones((7, 6)), -1), "rasch").flags


def test_a_sample_without_spread_has_sd_zero_and_no_negative_slope():
    fit = irt.fit([[1, 0], [0, 1]], "rasch")
    assert "theta_sd_zero" in fit.flags
    assert fit.theta_sd >= 0
    assert fit.b == pytest.approx([0, 0], abs=1e-6)


def test_a_reversed_item_gets_a_negative_slope_and_a_flag():
    s = irt.simulate(500, 6, seed=1).responses
    s[:, 2] = 1 - s[:, 2]
    fit = irt.fit(s, "2pl")
    assert "negative_slope" in fit.flags
    assert (fit.a < 0).tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize(
    ("responses", "options", "message"),
    [
        ([[0, 1], [2, 1]], {}, r"responses\[1, 0\] = 2"),
        ([[0, 1], [np.nan, np.nan]], {}, "respondent 1 has no response"),
        ([[0, np.nan], [1, np.nan]], {}, "item 1 has no response"),
        (
            [[0, 1, np.nan, np.nan], [1, 0, np.nan, np.nan], [np.nan, np.nan, 1, 0], [np.nan, np.nan, 0, 1]],
            {},
            "disconnected",
        ),
        ([[0, 1], [1, 0]], {"freq": [1]}, "freq"),
        ([[0, 1], [1, 0]], {"model": "4pl"}, "model must be"),
        ([[0, 1], [1, 0]], {"guess": [0.2, 0.2, 0.2]}, "guess"),
        ([[1, 1], [1, 1]], {"model": "rasch"}, "every item is all right or all wrong"),
        ([[0, 1], [0, 1], [0, 0]], {"model": "rasch", "estimator": "cml"}, "two items"),
        ([1, 0, 1], {}, "shape"),
    ],
)
def test_bad_input_names_the_place(responses, options, message):
    with pytest.raises(ValueError, match=message):
        irt.fit(responses, **options)
