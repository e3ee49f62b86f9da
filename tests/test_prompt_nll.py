"""Calibration by a prompt's own NLL, which may be higher or lower where items are harder, or say nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from tests.test_calibration import CONFIG, statistics
from tests.test_grouping import AHEAD, NAMES, ON
from tests.test_grouping import World as Groups
from zpd_ray.calibration import Fit, fit_stage

N, SPREAD, SHARE = 2000, 1.5, 0.1
SIGN = {"unrelated": 0.0, "lower": -1.0, "higher": 1.0}
Floats = np.ndarray


class World:
    """Items of known difficulty, whose prompts have a higher NLL where they are harder, a lower, or any."""

    def __init__(self, seed: int, relation: str, theta: float) -> None:
        self.rng = np.random.default_rng(seed)
        self.b = SPREAD * self.rng.normal(size=N)
        noise = self.rng.normal(size=N)
        z = SIGN.get(relation, 0.0) * self.b / SPREAD + (0.5 if SIGN.get(relation) else 1.0) * noise
        self.nll = np.exp(0.8 + 0.3 * (0 * z if relation == "constant" else z)).astype(np.float32)
        self.p = expit(theta - self.b)

    def worth(self, score: Floats) -> float:
        """Mean true p(1-p) of the best tenth, ties drawn, over the most that any choice would have."""
        order = np.lexsort((self.rng.random(N), -score))[: int(SHARE * N)]
        true = self.p * (1 - self.p)
        return float(true[order].mean() / np.sort(true)[-len(order) :].mean())


def fitted(world: World, s: Floats, k: int) -> tuple[Fit, Floats]:
    fit = fit_stage(statistics(world.nll, s, k), CONFIG, 0, None, of_prompts=True)
    return fit, fit.judge(world.nll.astype(float), s, np.full(N, k), np.zeros(N)).zpd


@pytest.mark.parametrize("k", [1, 2, 8])
@pytest.mark.parametrize("theta", [0.0, -2.0])
def test_the_zone_is_chosen_by_rollouts_whatever_the_nll_says(theta: float, k: int) -> None:
    """Against s/k nearest to one half, over the same seeds."""
    more: dict[str, list[float]] = {"unrelated": [], "constant": [], "lower": [], "higher": []}
    for relation, gains in more.items():
        for seed in range(4):
            world = World(seed, relation, theta)
            s = world.rng.binomial(k, world.p)
            _, zpd = fitted(world, s, k)
            gains.append(world.worth(zpd) - world.worth(-np.abs(s / k - 0.5)))
    mean = {relation: float(np.mean(gains)) for relation, gains in more.items()}
    print({relation: round(gain, 3) for relation, gain in mean.items()})
    assert mean["unrelated"] > -0.015
    assert mean["constant"] > -0.015
    assert min(mean["lower"], mean["higher"]) > 0.015
    assert mean["lower"] == pytest.approx(mean["higher"], abs=0.03)


def test_the_slope_has_the_sign_that_the_responses_tell_and_only_references_are_warned_of() -> None:
    slopes = {}
    for relation in SIGN:
        world = World(0, relation, 0.5)
        fit, _ = fitted(world, world.rng.binomial(4, world.p), 4)
        slopes[relation] = fit.calibration.gamma
        flagged = "slope_not_positive" in fit.told_flags()
        assert flagged == (fit.calibration.gamma <= 0)
        assert fit.told_flags(prompts_alone=True) == [
            flag for flag in fit.told_flags() if flag != "slope_not_positive"
        ]
    assert slopes["lower"] < -1 < 1 < slopes["higher"]
    assert abs(slopes["unrelated"]) < 0.15


@pytest.mark.parametrize("relation", SIGN)
def test_what_a_model_gains_is_seen_whatever_the_nll_says(relation: str) -> None:
    errors = []
    for seed in range(3):
        world, k = World(seed, relation, 0.0), 4
        s = [world.rng.binomial(k, expit(theta - world.b)) for theta in (0.0, 0.7)]
        first = fit_stage(statistics(world.nll, s[0], k), CONFIG, 0, None, of_prompts=True)
        told = statistics(world.nll, s[1], k, ((s[0], k),), world.nll)
        last = fit_stage(told, CONFIG, 1, first, of_prompts=True).ability.stages[-1]
        errors.append((last.gain - 0.7) / last.gain_se)
    assert np.abs(errors).max() < 3


@pytest.mark.parametrize("right", [0, 4])
def test_where_nothing_is_told_no_item_is_preferred(right: int) -> None:
    """By a reference's NLL the nearest would come first; a prompt's is not taken for difficulty."""
    world = World(0, "higher", 0.0)
    s = np.full(N, right)
    _, zpd = fitted(world, s, 4)
    assert np.ptp(zpd) < 0.02 * zpd.mean()
    by_reference = fit_stage(statistics(world.nll, s, 4), CONFIG, 0, None)
    other = by_reference.judge(world.nll.astype(float), s, np.full(N, 4), np.zeros(N)).zpd
    assert np.ptp(other) > 0.5 * other.mean()


def test_groups_are_told_apart_where_harder_items_have_the_lower_nll() -> None:
    world = Groups(n=4000, k=4)
    world.nll = 1 / world.nll
    fit = fit_stage(world.statistics(True), ON, 0, None, NAMES, of_prompts=True)
    assert fit.calibration.gamma < -0.5
    assert fit.groups is not None
    thetas, errors = np.array([(at.theta, at.se) for at in fit.groups.standings]).T
    z = (thetas - thetas[0] - (AHEAD - AHEAD[0]))[1:] / np.hypot(errors, errors[0])[1:]
    assert np.abs(z).max() < 4
