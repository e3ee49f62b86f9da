"""Ability by group: known differences are found, groups that do not differ are one, parts change nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit

from zpd_ray.ability import count_history
from zpd_ray.calibration import Fit, Statistics, fit_stage
from zpd_ray.config import AbilityConfig
from zpd_ray.grouping import FEWEST, MOST, frequent
from zpd_ray.matching import probability

OFF, ON = AbilityConfig(), AbilityConfig(groups=True)
AHEAD = np.array([-1.2, -0.4, 0.0, 0.5, 1.1, 0.2])  # the last: of items of no group in the table
NAMES = ["a", "b", "c", "d", "e"]


@dataclass
class World:
    """Items of several groups: at the same difficulty and NLL, those of a group are answered better."""

    n: int = 6000
    k: int = 2
    seed: int = 0
    spread: float = 1.0  # of the differences between groups

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        b = rng.normal(size=self.n)
        self.group = rng.choice(len(AHEAD), self.n, p=[0.3, 0.3, 0.2, 0.1, 0.02, 0.08])
        self.nll = np.exp(0.5 * b + 0.2 * rng.normal(size=self.n)).astype(np.float32)
        self.p = expit(self.spread * AHEAD[self.group] - b)
        self.s = rng.binomial(self.k, self.p)
        self.rollouts, self.none = np.full(self.n, self.k), np.zeros(self.n, np.int64)

    def statistics(self, grouped: bool, rows: np.ndarray | slice = slice(None)) -> Statistics:
        nll, s, k, none = (of[rows] for of in (self.nll, self.s, self.rollouts, self.none))
        history = count_history(nll, none, none.astype(bool), {0: (s, k)})
        return Statistics.of(nll, none, s, k, history, self.group[rows] if grouped else None)

    def fit(self, grouped: bool = True) -> Fit:
        names = NAMES if grouped else None
        return fit_stage(self.statistics(grouped), ON if grouped else OFF, 0, None, names)

    def score(self, fit: Fit) -> np.ndarray:
        ahead = None if fit.groups is None else fit.groups.ahead(fit.ability.theta, self.group)
        floor = np.zeros(self.n)
        return fit.judge(self.nll.astype(float), self.s, self.rollouts, floor, ahead=ahead).zpd


@pytest.mark.parametrize("k", [1, 4])
def test_known_differences_between_groups_are_recovered_within_their_errors(k: int) -> None:
    z = []
    for seed in range(3):
        fit = World(n=4000, k=k, seed=seed).fit()
        assert fit.groups is not None
        assert fit.groups.names == NAMES
        thetas, errors = np.array([(at.theta, at.se) for at in fit.groups.standings]).T
        z.append((thetas - thetas[0] - (AHEAD - AHEAD[0]))[1:] / np.hypot(errors, errors[0])[1:])
        assert 0.4 < fit.groups.tau < 1.6
        assert [at.items for at in fit.groups.standings] == np.bincount(
            World(n=4000, seed=seed).group
        ).tolist()
    assert np.abs(z).max() < 4
    assert np.sqrt(np.mean(np.square(z))) < 1.5


def test_groups_that_do_not_differ_are_one() -> None:
    """The same items, answered alike, in each of them: the fit is that without groups."""
    world = World(n=1000)
    for name in ("nll", "s", "rollouts", "none", "p"):
        setattr(world, name, np.tile(getattr(world, name), len(AHEAD)))
    world.group, world.n = np.repeat(np.arange(len(AHEAD)), 1000), 1000 * len(AHEAD)
    one, several = world.fit(grouped=False), world.fit()
    assert several.groups is not None
    assert several.groups.tau == 0
    assert {at.theta for at in several.groups.standings} == {one.ability.theta}
    assert several.calibration == one.calibration
    assert_array_equal(world.score(several), world.score(one))


def test_a_small_group_is_shrunk_more() -> None:
    world = World(n=3000)
    world.group[:10], world.s[:10] = 4, world.k  # all right, which alone would mean an infinite theta
    keep = (world.group != 4) | (np.arange(world.n) < 10)
    fit = fit_stage(world.statistics(True, keep), ON, 0, None, NAMES)
    assert fit.groups is not None
    small = fit.groups.standings[4]
    assert small.items == 10
    assert fit.ability.theta < small.theta < fit.ability.theta + 5
    assert small.se is not None
    assert small.se > 3 * min(at.se or 0.0 for at in fit.groups.standings)


def test_without_groups_nothing_is_written_of_them_and_ability_is_the_same_with_them() -> None:
    world = World()
    off, on = world.fit(grouped=False).to_json(), world.fit().to_json()
    assert "groups" not in off
    assert {key: on[key] for key in ("ability", "loglik", "grad_norm", "flags")} == {
        key: off[key] for key in ("ability", "loglik", "grad_norm", "flags")
    }
    assert on["calibration"]["sigma"] < off["calibration"]["sigma"]  # what groups explain is no residual


def test_any_split_into_parts_in_any_order_gives_the_same_bits() -> None:
    world, told = World(n=2000), set()
    for pieces in (1, 40):
        rng = np.random.default_rng(pieces)
        parts = [world.statistics(True, rows) for rows in np.array_split(rng.permutation(world.n), pieces)]
        rng.shuffle(parts)
        told.add(json.dumps(fit_stage(Statistics.merge(parts), ON, 0, None, NAMES).to_json()))
    assert len(told) == 1
    assert Fit.from_json(json.loads(told.pop())) == world.fit()


@pytest.mark.parametrize("k", [1, 4])
def test_what_is_selected_is_nearer_to_the_zone_where_groups_differ(k: int) -> None:
    gains = []
    for seed in range(2):
        world = World(n=4000, k=k, seed=seed)
        one, several = (np.argsort(-world.score(world.fit(grouped)))[:200] for grouped in (False, True))
        star = world.p * (1 - world.p)
        gains.append(star[several].mean() - star[one].mean())
    assert min(gains) > 0


def test_an_item_ahead_is_judged_as_by_a_model_that_is_better() -> None:
    world = World()
    fit, nll, floor = world.fit(), world.nll.astype(float), np.full(world.n, 0.1)
    theta, ahead = fit.ability.theta, np.full(world.n, 0.7)
    by_group = fit.judge(nll, world.s, world.rollouts, floor, ahead=ahead)
    better = fit.calibration.judge(theta + 0.7, nll, world.s, world.rollouts, floor)
    for own, other in zip(by_group, better, strict=True):
        assert_allclose(own, other, atol=1e-6)
    assert_allclose(
        fit.calibration.expected(theta, nll, floor, ahead),
        fit.calibration.expected(theta + 0.7, nll, floor),
        atol=1e-12,
    )
    assert (probability(theta + ahead, by_group.b) > probability(theta, by_group.b)).all()


@pytest.mark.parametrize("right", [False, True])
def test_responses_of_one_kind_tell_no_groups_apart(right: bool) -> None:
    world = World(n=1000)
    world.s = np.full(world.n, world.k * right)
    fit = world.fit()
    assert fit.groups is not None
    assert {at.theta for at in fit.groups.standings} == {fit.ability.theta}


def test_the_most_frequent_groups_are_told_apart() -> None:
    counts = {f"g{i:03}": 30 + i % 3 for i in range(200)} | {"": 9999, "rare": FEWEST - 1, "big": 10_000}
    names = frequent(counts)
    assert len(names) == MOST
    assert names[0] == "big"
    assert names[1:3] == ["g002", "g005"]  # ties by name
    assert {"", "rare"}.isdisjoint(names)
    assert frequent({"rare": FEWEST - 1}) == []
