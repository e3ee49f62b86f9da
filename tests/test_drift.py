"""What probes say: a level that holds, parts that are found and named, and how far items move."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from zpd_ray.ability import count_history
from zpd_ray.calibration import Statistics, fit_stage
from zpd_ray.config import AbilityConfig
from zpd_ray.drift import ALL, BAND, GROUP, LEVEL, SUSPECT, Drifted, Probed, look_at
from zpd_ray.matching import zpd_score
from zpd_ray.movement import Asked, estimate_moved, estimate_shift
from zpd_ray.selection.probes import probe_order

THETA = 0.3


def asked(
    seed: int, n: int = 1000, k: int = 4, moved: float = 0.0, shift: dict[str, float] | None = None
) -> Asked:
    """Probes in ten groups, "g0" to "g9"; ``shift``: logits by which a group has become harder."""
    rng = np.random.default_rng(seed)
    b, sd = rng.normal(0.0, 1.0, n), rng.uniform(0.2, 0.6, n)
    group = np.array([f"g{i}" for i in range(10)])[rng.integers(0, 10, n)]
    truth = rng.normal(b, np.sqrt(sd**2 + moved**2))
    truth += np.array([(shift or {}).get(name, 0.0) for name in group])
    rollouts = np.full(n, k)
    return Asked(rng.binomial(rollouts, expit(THETA - truth)), rollouts, np.zeros(n), b, sd, group)


def test_a_group_that_drifts_is_named_and_its_shift_is_told() -> None:
    found = look_at(asked(0, shift={"g3": 1.0}), THETA, 0.05, 1000)
    assert [(part.kind, part.name) for part in found.drifted] == [(GROUP, "g3")]
    (part,) = found.drifted
    assert abs(part.shift - 1.0) < 3 * part.se
    assert found.moved < 0.25  # it is not taken for a movement of all items
    assert str(part) == "group g3"


def test_two_groups_and_one_that_became_easier() -> None:
    found = look_at(asked(1, shift={"g3": 1.0, "g7": -1.2}), THETA, 0.05, 1000)
    assert {part.name: part.shift > 0 for part in found.drifted} == {"g3": True, "g7": False}


def test_a_band_of_difficulty_is_found() -> None:
    probes = asked(2)
    hard = probes.b > np.quantile(probes.b, 0.8)
    s = np.where(hard, np.random.default_rng(0).binomial(4, expit(THETA - probes.b - 1.0)), probes.successes)
    found = look_at(probes._replace(successes=s), THETA, 0.05, 1000)
    assert [(part.kind, part.high) for part in found.drifted] == [(BAND, None)]
    np.testing.assert_array_equal(found.drifted[0].holds(probes.b, probes.group), hard)


def test_theta_that_predictions_do_not_fit_is_a_drift_of_the_whole() -> None:
    found = look_at(asked(3), THETA + 0.5, 0.05, 1000)
    assert found.drifted[0].kind == ALL
    assert abs(found.drifted[0].shift - 0.5) < 0.2


def test_an_item_drifts_with_the_first_part_that_holds_it_and_with_the_pool() -> None:
    known = {"se": 0.1, "p": 0.0, "probes": 99}
    parts = [
        Drifted(GROUP, "g3", None, None, shift=1.0, moved=0.5, **known),
        Drifted(BAND, "", 0.5, None, 0.25, **known),
    ]
    b, group = np.array([0.0, 0.0, 0.5, 1.0]), np.array(["g1", "g3", "g1", "g3"])
    found = Probed(400, 0.2, 1.0, False, parts)
    np.testing.assert_array_equal(found.part(b, group), [-1, 0, 1, 0])
    shift, variance = found.drift(b, group)
    np.testing.assert_array_equal(shift, [0.0, 1.0, 0.25, 1.0])
    np.testing.assert_allclose(variance, [0.04, 0.26, 0.01, 0.26])  # se and what items moved, or moved alone
    whole = Probed(400, 0.2, 1.0, False, [Drifted(ALL, "", None, None, 2.0, **known), *parts])
    shift, variance = whole.drift(b, group)
    np.testing.assert_array_equal(shift, [2.0, 3.0, 2.25, 3.0])
    np.testing.assert_allclose(variance, [0.05, 0.27, 0.02, 0.27])
    np.testing.assert_array_equal(whole.part(b, group), [-1, 1, 2, 1])


@pytest.mark.parametrize("runs", [50, pytest.param(1000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize(("k", "moved"), [(1, 0.5), (4, 0.0)])
def test_nothing_is_found_where_nothing_has_drifted(k: int, moved: float, runs: int) -> None:
    alarms = sum(bool(look_at(asked(s, 400, k, moved), THETA, 0.05, 1000).drifted) for s in range(runs))
    assert alarms / runs < LEVEL + 3 * np.sqrt(LEVEL / runs)


@pytest.mark.parametrize(
    ("shift", "moved", "k"), [(1.0, 0.0, 4), (-2.0, 1.5, 4), (0.5, 0.5, 1), (6.0, 0.0, 16)]
)
def test_a_shift_is_estimated_with_an_honest_error(shift: float, moved: float, k: int) -> None:
    """Also where what was predicted is so far off that all responses there were unthinkable."""
    group = {f"g{i}": shift for i in range(10)}
    found = [estimate_shift(asked(s, 200, k, moved, group), THETA) for s in range(20)]
    away = np.array([(each.shift - shift) / each.se for each in found])
    assert np.abs(away).max() < 4
    assert abs(away.mean()) < 0.8  # of one error: the priors pull a little
    assert 0.6 < away.std() < 1.4
    if k > 1:
        assert abs(np.mean([each.moved for each in found]) - moved) < 0.3


def test_some_that_moved_far_are_not_all_that_moved_a_little() -> None:
    """A part of which training has taught half: the mean is -2 logits, and no item is known by it."""
    taught = np.random.default_rng(0).random(400) < 0.5
    probes = asked(5, 400, 4)
    easier = np.random.default_rng(1).binomial(4, expit(THETA - probes.b + 4.0 * taught))
    found = estimate_shift(probes._replace(successes=easier), THETA)
    assert -2.6 < found.shift < -1.2
    assert found.moved > 1.2


def test_a_part_that_drifts_far_is_told_alone_and_a_wide_shift_chooses_no_bad_candidates() -> None:
    """The hardest fifth, of which training has taught half: of the others nothing is told.

    What the mean shift brings into the zone is both, far from it; by its spread nobody takes it for the best.
    """
    rng, n = np.random.default_rng(0), 20_000
    b, sd, group = rng.normal(0.0, 3.0, n), np.full(n, 0.6), np.full(n, "g")
    hard = b > np.quantile(b, 0.8)
    p = expit(THETA - rng.normal(b, sd) + 6.0 * (hard & (rng.random(n) < 0.5)))
    probes, k = rng.choice(n, 400, replace=False), np.full(400, 4)
    s, floor = rng.binomial(4, p[probes]), np.zeros(400)
    found = look_at(Asked(s, k, floor, b[probes], sd[probes], group[probes]), THETA, 0.1, 400)
    (part,) = found.drifted
    assert (part.kind, part.high) == (BAND, None)
    assert abs(part.shift + 3.0) < 3 * part.se
    assert part.moved > 2
    shift, variance = found.drift(b, group)

    def worth(b_sd: np.ndarray) -> float:
        score = zpd_score(THETA, b + shift, b_sd, np.zeros(n))
        best = np.argsort(-score, kind="stable")[:300]
        return float((p[best] * (1 - p[best])).mean())

    assert worth(np.sqrt(sd**2 + variance)) > worth(sd) + 0.03


def test_a_part_that_has_drawn_theta_along_is_told_against_the_rest() -> None:
    """A third of the probes is a logit harder, and theta was fitted to all: a third too low."""
    found = []
    for seed in range(10):
        probes = asked(seed, 600, 4, shift={f"g{i}": 1.0 for i in range(3)})
        third = np.where(np.isin(probes.group, ["g0", "g1", "g2"]), "third", "rest")
        drifted = look_at(probes._replace(group=third), THETA - 1 / 3, 0.1, 600).drifted
        found += [
            part.shift if part.name == "third" else -part.shift for part in drifted if part.kind == GROUP
        ]
    assert len(found) > 5
    assert abs(np.mean(found) - 1.0) < 0.2


def test_few_failures_where_none_were_predicted_are_no_great_drift() -> None:
    """p was .9999 and is .98: five logits, and one step from .9999 would go a hundred."""
    n, k = 200, 16
    failed = np.random.default_rng(0).binomial(k, 0.02, n)
    b = np.full(n, THETA - 9.0)
    group = np.full(n, "g0")
    found = estimate_shift(Asked(k - failed, np.full(n, k), np.zeros(n), b, np.full(n, 0.3), group), THETA)
    assert abs(found.shift - (9.0 - np.log(0.98 / 0.02))) < 0.3


@pytest.mark.parametrize("truth", [0.0, 0.5, 1.0])
def test_what_items_move_is_estimated(truth: float) -> None:
    found = [estimate_moved(asked(s, 1000, 4, truth), THETA) for s in range(10)]
    assert abs(np.mean(found) - truth) < (0.2 if truth == 0 else 0.1)
    assert np.std(found) < 0.2


def test_more_probes_are_asked_for_where_they_would_show_a_drift() -> None:
    probes = asked(4, 1000, 1)
    first = probes.take(np.arange(1000) < 200)
    assert look_at(first, THETA, 0.05, 1000).unsure  # a tenth of 200 responses say little of a group
    assert not look_at(first, THETA, 0.05, 200).unsure  # there are no more
    for seed in range(5):  # known well already, but for what looks suspicious by chance
        found = look_at(asked(seed, 1000, 16), THETA, 0.05, 2000)
        assert found.unsure == (found.least_p < SUSPECT)


def test_few_probes_say_nothing() -> None:
    found = look_at(asked(0, 15, shift={"g3": 3.0}), THETA, 0.05, 1000)
    assert (found.asked, found.drifted) == (15, [])
    nobody = look_at(asked(0, 0), THETA, 0.05, 1000)
    assert (nobody.asked, nobody.moved, nobody.drifted) == (0, 0.0, [])


def fitted(seed: int, k: int, moved: float) -> tuple[float, float, Probed]:
    """theta_1, its error, and a look at 800 probes of a pool, by the fits of a run; the truth is 0.3."""
    rng, n = np.random.default_rng(seed), 20_000
    b, e, nobody = rng.normal(size=n), rng.normal(size=n), np.zeros(n, dtype=np.int64)
    ks, floor, group = np.full(n, k), np.zeros(n), rng.choice([f"g{i}" for i in range(10)], n)
    nll = [np.exp(-0.5 + 0.5 * (b - theta) + 0.25 * e) for theta in (0.0, 0.3)]
    s = [rng.binomial(k, expit(-b)), rng.binomial(k, expit(0.3 - b - moved * rng.normal(size=n)))]
    history = count_history(nll[0], nobody, nobody > 0, {0: (s[0], ks)})
    first = fit_stage(Statistics.of(nll[0], nobody, s[0], ks, history), AbilityConfig(), 0, None)
    before = first.judge(nll[0], s[0], ks, floor)
    information = zpd_score(first.ability.theta, before.b, before.b_sd, criterion="information")
    probes = probe_order(before.b, information, group, rng.uniform(size=n))[:800]
    probe = np.isin(np.arange(n), probes)
    answers = {0: (s[0], ks), 1: (np.where(probe, s[1], 0), np.where(probe, ks, 0))}
    history = count_history(nll[0], nobody, ~probe, answers)
    now = Statistics.of(nll[1][probe], nobody[probe], s[1][probe], ks[probe], history)
    second = fit_stage(now, AbilityConfig(), 1, first).ability
    moves = second.at(0).theta - first.ability.theta
    columns = (s[1], ks, floor, before.b + moves, before.b_sd, group)
    found = look_at(Asked(*(column[probe] for column in columns)), second.theta, second.se, 800)
    return second.theta, second.se, found


@pytest.mark.parametrize(("k", "moved"), [(1, 0.0), (4, 0.5)])
def test_by_the_fits_of_a_run_theta_is_true_and_nothing_drifts(k: int, moved: float) -> None:
    runs = [fitted(seed, k, moved) for seed in range(6)]
    away = [(theta - 0.3) / se for theta, se, _ in runs]
    assert np.abs(away).max() < 3.5
    assert [part for *_, found in runs for part in found.drifted] == []
    if k > 1:
        assert abs(np.mean([found.moved for *_, found in runs]) - moved) < 0.15
