"""A stage's fit: recovery of known abilities, extremes, links between stages, the same bits always."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit

from zpd_ray.ability import count_history, estimate
from zpd_ray.calibration import Fit, Statistics, fit_stage
from zpd_ray.config import AbilityConfig
from zpd_ray.difficulty import feedback_difficulty, log_nll_of_bin, robust_scale
from zpd_ray.errors import ZpdError
from zpd_ray.irt import Counts
from zpd_ray.matching import zpd_score

CONFIG = AbilityConfig()
FEEDBACK = AbilityConfig(calibration="feedback")
BOTH = pytest.mark.parametrize("config", [CONFIG, FEEDBACK], ids=["explanatory", "feedback"])


@dataclass
class World:
    """Items with known difficulty, mean 0; log NLL is linear in it, with noise of the item's own."""

    n: int = 2000
    seed: int = 0
    noise: float = 0.25

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        b = self.rng.normal(size=self.n)
        self.b, self.e = b - b.mean(), self.rng.normal(size=self.n)

    def nll(self, theta: float, at: float = -0.5, slope: float = 0.5) -> np.ndarray:
        return np.exp(at + slope * (self.b - theta) + self.noise * self.e).astype(np.float32)

    def answers(self, theta: float, k: int, guess: float = 0.0) -> np.ndarray:
        return self.rng.binomial(k, guess + (1 - guess) * expit(theta - self.b))


Answer = tuple[np.ndarray, int | np.ndarray]  # successes, rollouts


def statistics(
    nll: np.ndarray,
    successes: np.ndarray,
    k: int,
    earlier: tuple[Answer, ...] = (),
    first: np.ndarray | None = None,
    options: int = 0,
    trained: np.ndarray | None = None,
) -> Statistics:
    """Of one stage; ``earlier``: what the same items answered before it; ``first``: their NLLs at stage 0."""
    none = np.zeros(len(nll), np.int64)
    answers = {t: (s, none + of) for t, (s, of) in enumerate((*earlier, (successes, k)))}
    trained = none.astype(bool) if trained is None else trained
    history = count_history(nll if first is None else first, none + options, trained, answers)
    kept = ~trained
    return Statistics.of(nll[kept], (none + options)[kept], successes[kept], (none + k)[kept], history)


@pytest.mark.parametrize(("theta", "k"), [(-1.5, 1), (0.0, 4), (1.2, 2), (2.5, 8)])
def test_a_known_ability_is_recovered_within_its_standard_error(theta: float, k: int) -> None:
    errors = []
    for seed in range(6):
        world = World(seed=seed)
        fit = fit_stage(statistics(world.nll(theta), world.answers(theta, k), k), CONFIG, 0, None)
        assert 0 < fit.ability.se < (0.5 if k > 1 else 0.8)  # one response each leaves sigma to its prior
        assert fit.grad_norm < 1e-3
        errors.append((fit.ability.theta - theta) / fit.ability.se)
    assert np.abs(errors).max() < 3
    assert abs(np.mean(errors)) < 3 / np.sqrt(len(errors))


def test_the_standard_error_shrinks_as_the_square_root_of_the_pool() -> None:
    small, large = World(n=1000), World(n=16_000)
    fits = [fit_stage(statistics(w.nll(0), w.answers(0, 2), 2), CONFIG, 0, None) for w in (small, large)]
    assert fits[0].ability.se / fits[1].ability.se == pytest.approx(4, rel=0.15)


def test_slope_and_spread_of_difficulty_are_recovered_where_rollouts_tell_them() -> None:
    """b given z is normal: slope cov(b, z) / var(z), spread sqrt(1 - correlation^2)."""
    world = World(n=20_000, noise=0.5)
    fit = fit_stage(statistics(world.nll(0), world.answers(0, 6), 6), CONFIG, 0, None)
    z = fit.calibration.z(world.nll(0).astype(float))
    assert fit.calibration.gamma == pytest.approx(np.cov(world.b, z)[0, 1] / z.var(), abs=0.05)
    assert fit.calibration.sigma == pytest.approx(np.sqrt(1 - np.corrcoef(world.b, z)[0, 1] ** 2), abs=0.05)
    assert fit.calibration.gamma_se is not None
    assert fit.calibration.sigma_se is not None


def test_difficulties_of_items_are_recovered_with_honest_uncertainty() -> None:
    world = World(n=5000)
    s, k = world.answers(0.5, 4), np.full(5000, 4)
    fit = fit_stage(statistics(world.nll(0.5), s, 4), CONFIG, 0, None)
    b, sd = fit.difficulty(world.nll(0.5).astype(float), s, k, np.zeros(5000))
    assert np.corrcoef(b, world.b)[0, 1] > 0.85
    assert np.std((b - world.b) / sd) == pytest.approx(1, abs=0.1)
    assert abs(b.mean()) < 0.1
    unanswered = fit.difficulty(world.nll(0.5).astype(float), 0 * s, 0 * k, np.zeros(5000))
    assert_allclose(
        unanswered[0],
        fit.calibration.gamma * (fit.calibration.z(world.nll(0.5).astype(float)) - fit.calibration.origin)
        + fit.calibration.shift,
        atol=1e-9,
    )
    nodes, weights = np.array(fit.calibration.residual_nodes), np.array(fit.calibration.residual_weights)
    assert_allclose(unanswered[1], np.sqrt(weights @ nodes**2), rtol=1e-6)
    assert unanswered[1][0] == pytest.approx(fit.calibration.sigma, rel=0.1)
    assert (sd < unanswered[1]).mean() > 0.8  # heavy tails: responses that surprise widen


def test_one_response_per_item_says_that_the_spread_is_the_prior() -> None:
    world = World()
    fit = fit_stage(statistics(world.nll(0), world.answers(0, 1), 1), CONFIG, 0, None)
    assert "sigma_not_identified" in fit.flags
    assert fit.calibration.sigma == CONFIG.sigma
    assert fit.calibration.sigma_se is None


@pytest.mark.parametrize(("k", "noise"), [(1, 0.5), (4, 0.0)])
def test_the_residual_stays_normal_where_responses_do_not_show_its_shape(k: int, noise: float) -> None:
    """One response an item, or difficulties that follow the NLL to less than the grid's step."""
    world = World(n=4000, noise=noise)
    fit = fit_stage(statistics(world.nll(0), world.answers(0, k), k), CONFIG, 0, None)
    assert fit.calibration.residual_nodes == fit.calibration.residual_weights == []


@pytest.mark.parametrize(("k", "options"), [(2, 0), (4, 4)])
def test_two_humps_are_seen_and_what_is_between_them_is_not_selected(k: int, options: int) -> None:
    """Half of the items 2 logits easier than their NLL says, half 2 harder: none at b = gamma z."""
    rng, n = np.random.default_rng(3), 4000
    z = rng.normal(size=n)
    b = 1.2 * z + rng.choice([-2.0, 2.0], n)
    floor = 1 / options if options else 0.0
    s, rollouts, guess = rng.binomial(k, floor + (1 - floor) * expit(-b)), np.full(n, k), np.full(n, floor)
    fit = fit_stage(statistics(np.exp(z), s, k, options=options), CONFIG, 0, None)
    score = fit.judge(np.exp(z), s, rollouts, guess).zpd
    star = expit(-b) * expit(b)
    top = np.argsort(-score)[: n // 20]
    nearest = np.argsort(np.abs(s / k - 0.5 * (1 + floor)))[: n // 20]
    assert star[top].mean() > star[nearest].mean() + 0.01


def test_what_the_nll_alone_lets_expect_follows_the_shape_of_the_residual() -> None:
    """Two humps: a normal residual of the same spread is off by .04 a logit and a half from the middle."""
    rng, n, k = np.random.default_rng(4), 20_000, 4
    z = rng.normal(size=n)
    b, none = 1.2 * z + rng.choice([-2.0, 2.0], n), np.zeros(n)
    fit = fit_stage(statistics(np.exp(z), rng.binomial(k, expit(-b)), k), CONFIG, 0, None)
    true = 0.5 * (expit(-1.2 * z - 2.0) + expit(-1.2 * z + 2.0))
    normal = replace(fit.calibration, residual_nodes=[], residual_weights=[])
    by_shape, by_normal = (
        np.abs(own.expected(fit.ability.theta, np.exp(z), none) - true) for own in (fit.calibration, normal)
    )
    assert by_shape.max() < 0.025
    assert by_shape.mean() < 0.5 * by_normal.mean()


def test_a_normal_residual_is_ranked_as_the_normal_model_ranks_it() -> None:
    world, k = World(n=20_000, noise=0.5), 8
    s, nll, none = world.answers(0, k), world.nll(0).astype(float), np.zeros(20_000)
    fit = fit_stage(statistics(world.nll(0), s, k), CONFIG, 0, None)
    normal = replace(fit.calibration, residual_nodes=[], residual_weights=[])
    assert fit.calibration.residual_nodes
    scores = [
        calibration.judge(fit.ability.theta, nll, s, np.full(20_000, k), none)
        for calibration in (fit.calibration, normal)
    ]
    p = expit(-world.b)
    quality = [(p * (1 - p))[np.argsort(-judged.zpd)[:1000]].mean() for judged in scores]
    assert quality[0] == pytest.approx(quality[1], rel=0.01)
    assert np.abs(scores[0].b - scores[1].b).mean() < 0.1


@BOTH
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("right", [False, True])
def test_all_wrong_and_all_right_are_finite_flagged_and_sensibly_ordered(
    config: AbilityConfig, k: int, right: bool
) -> None:
    world = World()
    s = np.full(world.n, k * right)
    fit = fit_stage(statistics(world.nll(0), s, k), config, 0, None)
    assert np.isfinite(
        [fit.ability.theta, fit.ability.se, fit.calibration.gamma, fit.calibration.sigma, fit.loglik]
    ).all()
    assert fit.flags
    b, sd = fit.difficulty(world.nll(0).astype(float), s, np.full(world.n, k), np.zeros(world.n))
    assert np.isfinite(b).all()
    assert (fit.ability.theta > b.mean()) == right
    # The nearest to the ability come first: of hopeless items the most likely, of mastered the least.
    score = zpd_score(fit.ability.theta, b, sd)
    order = np.argsort(world.nll(0) if not right else -world.nll(0))
    reached = order[np.abs(b[order] - fit.ability.theta) > 1][: world.n // 2]
    assert (np.diff(score[reached]) <= 0).all()
    top = np.argsort(-score)[:200]
    assert (np.median(world.nll(0)[top]) < np.median(world.nll(0))) != right


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("move", [0.8, -0.8])
@pytest.mark.parametrize(("at", "slope"), [(-0.5, 0.5), (-0.5, 0.8), (0.0, 0.3)])
def test_what_a_model_gains_or_loses_is_seen_whatever_its_nlls_did(
    k: int, move: float, at: float, slope: float
) -> None:
    errors = []
    for seed in range(4):
        world = World(n=3000, seed=seed)
        old, new = world.nll(-0.3), world.nll(-0.3 + move, at, slope)
        s = [world.answers(theta, k) for theta in (-0.3, -0.3 + move)]
        first = fit_stage(statistics(old, s[0], k), CONFIG, 0, None)
        second = fit_stage(statistics(new, s[1], k, ((s[0], k),), old), CONFIG, 1, first)
        assert (second.calibration.location, second.calibration.scale) == (
            first.calibration.location,
            first.calibration.scale,
        )
        last = second.ability.stages[-1]
        errors.append((last.gain - move) / last.gain_se)
        assert last.right == pytest.approx(last.expected, abs=0.02)
    assert np.abs(errors).max() < 3.2


def test_ability_is_the_same_whatever_was_selected_by_the_answers() -> None:
    """Items near the zone leave; what they answered before keeps theta where it was."""
    errors, without = [], []
    for seed in range(6):
        world = World(n=6000, seed=seed)
        first = world.nll(0.0)
        s = [world.answers(theta, 2) for theta in (0.0, 0.6)]
        trained = (s[0] == 2) & (first > np.median(first))  # harder by NLL, right nevertheless
        later = np.where(trained, 0, s[1]), np.where(trained, 0, 2)
        history = count_history(
            first, np.zeros(6000, np.int64), trained, {0: (s[0], np.full(6000, 2)), 1: later}
        )
        kept = history_of(history, history["trained"] == 0)
        scale = robust_scale(history["nll_bin"], history.freq)
        for counts, found in ((history, errors), (kept, without)):
            last = estimate(counts, scale, CONFIG).stages[-1]
            found.append((last.gain - 0.6) / last.gain_se)
    assert np.abs(errors).max() < 3.2
    assert np.mean(without) > 4  # what dropping them whole would do


def history_of(counts: Counts, rows: np.ndarray) -> Counts:
    """Some of the cells."""
    return Counts({name: values[rows] for name, values in counts.columns.items()}, counts.freq[rows])


def test_all_stages_stand_on_the_scale_of_the_newest_fit() -> None:
    world = World(n=4000)
    truth = [0.0, -0.7, -0.2]
    s = [world.answers(theta, 1) for theta in truth]
    nlls = [world.nll(theta) for theta in truth]
    fit, earlier = None, []
    for t in range(3):
        fit = fit_stage(statistics(nlls[t], s[t], 1, tuple(earlier), nlls[0]), CONFIG, t, fit)
        earlier.append((s[t], 1))
        assert [standing.stage for standing in fit.ability.stages] == list(range(t + 1))
    assert fit is not None
    gains = np.array([standing.gain for standing in fit.ability.stages])
    errors = np.array([standing.gain_se for standing in fit.ability.stages])
    assert gains[0] == errors[0] == 0
    assert np.abs((gains - truth)[1:] / errors[1:]).max() < 3.2
    assert fit.ability.theta == fit.ability.stages[-1].theta


def test_an_unknown_sigma_widens_the_error_and_a_second_stage_narrows_it() -> None:
    world = World(n=20_000)
    nll, s = world.nll(1.5), [world.answers(1.5, 1) for _ in range(2)]
    alone = fit_stage(statistics(nll, s[0], 1), CONFIG, 0, None)
    assert "sigma_not_identified" in alone.ability.flags
    both = fit_stage(statistics(nll, s[1], 1, ((s[0], 1),), nll), CONFIG, 1, alone)
    assert alone.ability.se > 3 * both.ability.stages[0].se
    assert both.ability.stages[0].theta == pytest.approx(1.5, abs=4 * both.ability.stages[0].se)


def test_difficulties_keep_their_place_between_stages() -> None:
    world = World(n=5000)
    old, new = world.nll(0.0), world.nll(0.8)
    s = [world.answers(theta, 4) for theta in (0.0, 0.8)]
    k = np.full(5000, 4)
    first = fit_stage(statistics(old, s[0], 4), CONFIG, 0, None)
    second = fit_stage(statistics(new, s[1], 4, ((s[0], 4),), old), CONFIG, 1, first)
    b = [
        fit.difficulty(nll.astype(float), x, k, np.zeros(5000))[0]
        for fit, nll, x in ((first, old, s[0]), (second, new, s[1]))
    ]
    assert (b[1] - b[0]).mean() == pytest.approx(0, abs=0.1)
    assert np.polyfit(world.b, b[1] - b[0], 1)[0] == pytest.approx(0, abs=0.1)


def test_an_item_whose_nll_fell_more_than_the_others_has_become_easier() -> None:
    world = World()
    old, new = world.nll(0.0), world.nll(0.5)
    learnt = new.copy()
    learnt[:50] *= 0.3
    before, s, k = world.answers(0.0, 4), world.answers(0.5, 4), np.full(world.n, 4)
    first = fit_stage(statistics(old, before, 4), CONFIG, 0, None)
    second = fit_stage(statistics(new, s, 4, ((before, 4),), old), CONFIG, 1, first)
    usual, lower = (second.difficulty(x.astype(float), s, k, np.zeros(world.n))[0] for x in (new, learnt))
    assert (lower[:50] < usual[:50]).all()
    assert_array_equal(lower[50:], usual[50:])


def _parts(seed: int, pieces: int) -> list[Statistics]:
    world = World(n=3000, seed=2)
    nll, s, before = world.nll(0.3), world.answers(0.3, 4), world.nll(0.0)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(3000)
    cuts = np.sort(rng.integers(0, 3000, pieces - 1))
    older = world.answers(0.0, 4)
    parts = [
        statistics(nll[part], s[part], 4, ((older[part], 4),), before[part]) for part in np.split(rows, cuts)
    ]
    rng.shuffle(parts)
    return parts


@BOTH
def test_any_split_into_parts_in_any_order_gives_the_same_bits(config: AbilityConfig) -> None:
    world = World(n=3000, seed=2)
    first = fit_stage(statistics(world.nll(0.0), world.answers(0.0, 4), 4), config, 0, None)
    fits = [
        fit_stage(Statistics.merge(_parts(seed, pieces)), config, 1, first)
        for seed, pieces in ((0, 1), (1, 2), (2, 17), (3, 200))
    ]
    assert len({json.dumps(fit.to_json()) for fit in fits}) == 1


@BOTH
@pytest.mark.parametrize("k", [1, 4])
def test_a_fit_survives_json_bit_for_bit(config: AbilityConfig, k: int) -> None:
    world = World(noise=0.5)
    s = world.answers(0, k)
    fit = fit_stage(statistics(world.nll(0), s, k), config, 0, None)
    again = Fit.from_json(json.loads(json.dumps(fit.to_json(), allow_nan=False)))
    assert again == fit
    arguments = world.nll(0).astype(float), s, np.full(world.n, k), np.zeros(world.n)
    assert_array_equal(again.difficulty(*arguments), fit.difficulty(*arguments))


def test_the_fit_counts_what_it_saw() -> None:
    world = World()
    s = world.answers(0, 3)
    fit = fit_stage(statistics(world.nll(0), s, 3), CONFIG, 0, None)
    assert (fit.n_items, fit.n_responses, fit.n_right) == (world.n, 3 * world.n, s.sum())
    assert fit.stage == 0


@BOTH
def test_more_right_answers_mean_more_ability(config: AbilityConfig) -> None:
    world = World()
    draw = world.rng.uniform(size=(world.n, 4))
    thetas = []
    for theta in (-2.0, -1.0, 0.0, 1.0, 2.0):
        s = (draw < expit(theta - world.b)[:, None]).sum(axis=1)
        thetas.append(fit_stage(statistics(world.nll(0), s, 4), config, 0, None).ability.theta)
    assert (np.diff(thetas) > 0.3).all()


def test_feedback_of_strength_zero_recovers_ability_where_nll_is_difficulty() -> None:
    config = AbilityConfig(calibration="feedback", feedback_strength=0.0)
    for seed in range(4):
        world = World(n=4000, seed=seed, noise=0.0)
        world.b /= world.b.std()
        nll = world.nll(0.0, slope=1.0)
        fit = fit_stage(statistics(nll, world.answers(0.7, 2), 2), config, 0, None)
        assert (
            abs(fit.ability.theta - 0.7) < 3 * fit.ability.se + 0.03
        )  # the quartiles give the scale to a few per cent


def test_feedback_difficulties_are_the_formula() -> None:
    world = World()
    s, k = world.answers(0, 4), np.full(world.n, 4)
    config = AbilityConfig(calibration="feedback", feedback_strength=0.7)
    fit = fit_stage(statistics(world.nll(0), s, 4), config, 0, None)
    z = fit.calibration.z(world.nll(0).astype(float))
    b, sd = fit.difficulty(world.nll(0).astype(float), s, k, np.zeros(world.n))
    own = feedback_difficulty(z - fit.calibration.origin, s, k, 0.7)
    assert_allclose(b, own + fit.calibration.shift, rtol=1e-12)
    assert not sd.any()
    assert (
        fit.calibration.gamma,
        fit.calibration.sigma,
        fit.calibration.gamma_se,
        fit.calibration.sigma_se,
    ) == (1.0, 0.0, None, None)


def test_feedback_theta_is_where_expected_meets_observed() -> None:
    """The score equation of the maximum a posteriori estimate, on the bins that the fit saw."""
    world = World()
    s, k = world.answers(0.4, 4), 4
    given = statistics(world.nll(0), s, k)
    fit = fit_stage(given, FEEDBACK, 0, None)
    cells = given.answers
    z = fit.calibration.z(np.exp(log_nll_of_bin(cells["nll_bin"])))
    b = feedback_difficulty(
        z - fit.calibration.origin + fit.calibration.shift,
        cells["successes"],
        cells["trials"],
        FEEDBACK.feedback_strength,
    )
    residual = cells.freq @ (cells["successes"] - cells["trials"] * expit(fit.ability.theta - b))
    own_theta = fit.ability.theta - fit.calibration.shift
    assert residual == pytest.approx(own_theta / FEEDBACK.theta_sd**2, abs=1e-3)


def test_a_guessing_floor_is_taken_off_the_ability() -> None:
    errors = []
    for seed in range(4):
        world = World(n=4000, seed=seed)
        s = world.answers(-1.0, 4, guess=0.25)
        with_floor = fit_stage(statistics(world.nll(-1), s, 4, options=4), CONFIG, 0, None)
        without = fit_stage(statistics(world.nll(-1), s, 4), CONFIG, 0, None)
        assert without.ability.theta > with_floor.ability.theta + 0.3
        errors.append((with_floor.ability.theta + 1) / with_floor.ability.se)
    assert np.abs(errors).max() < 3


@BOTH
def test_answers_at_the_floor_are_flagged_or_far_below_every_item(config: AbilityConfig) -> None:
    world = World()
    s = world.rng.binomial(4, 0.25, world.n)
    fit = fit_stage(statistics(world.nll(0), s, 4, options=4), config, 0, None)
    assert np.isfinite([fit.ability.theta, fit.ability.se]).all()
    assert fit.ability.theta < -1.5


@BOTH
def test_a_pool_of_equal_nlls_still_has_an_ability(config: AbilityConfig) -> None:
    s = World().rng.binomial(4, expit(0.8), 500)
    fit = fit_stage(statistics(np.full(500, 1.3), s, 4), config, 0, None)
    assert np.isfinite([fit.ability.theta, fit.ability.se, fit.calibration.gamma]).all()
    assert fit.calibration.scale == 1.0
    if config is CONFIG:  # feedback moves difficulties by the responses, and theta with them
        assert fit.ability.theta == pytest.approx(0.8, abs=4 * fit.ability.se)


@BOTH
@pytest.mark.parametrize("right", [0, 1])
def test_a_single_item_is_enough_for_a_finite_fit(config: AbilityConfig, right: int) -> None:
    fit = fit_stage(statistics(np.array([0.7]), np.array([right]), 1), config, 0, None)
    assert np.isfinite([fit.ability.theta, fit.ability.se]).all()
    assert fit.ability.se > 1


@pytest.mark.parametrize("stage", [0, 2])
def test_no_anchors_is_an_error_that_says_what_to_do(stage: int) -> None:
    nothing = statistics(np.zeros(0), np.zeros(0, int), 1)
    with pytest.raises(
        ZpdError, match=rf"stage {stage} has no measured item.*lower select\.budget or stages"
    ):
        fit_stage(nothing, CONFIG, stage, None)


def test_the_fit_does_not_grow_with_the_pool() -> None:
    small, large = World(n=2000), World(n=200_000)
    cells = [statistics(w.nll(0), w.answers(0, 4), 4).answers.freq.size for w in (small, large)]
    assert cells[1] < 2 * cells[0]
