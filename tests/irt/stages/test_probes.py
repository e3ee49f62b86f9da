"""Probe choice: what is chosen is the most informative of what is allowed."""

from __future__ import annotations

import numpy as np
import pytest

from zpd_ray import irt
from zpd_ray.irt import ProbeBank, enough


@pytest.mark.parametrize("kind", ["rasch", "2pl", "3pl"])
def test_strict_choice_is_maximum_information_in_order(kind):
    truth = irt.simulate(1, 3000, kind, seed=0)
    bank = ProbeBank(truth.b, truth.a, truth.c if kind == "3pl" else None, top=1)
    info = irt.information(0.4, truth.a, truth.b, truth.c if kind == "3pl" else None)
    chosen = bank.choose(0.4, 200)
    assert len(set(chosen.tolist())) == 200
    np.testing.assert_allclose(info[chosen], np.sort(info)[::-1][:200], rtol=1e-12)


def test_draws_are_among_the_top_and_reproducible():
    b = np.random.default_rng(1).normal(size=5000)
    first, again, other = (ProbeBank(b, top=5, seed=seed) for seed in (0, 0, 1))
    chosen = [first.next(0.0) for _ in range(50)]
    assert chosen == [again.next(0.0) for _ in range(50)]
    assert chosen != [other.next(0.0) for _ in range(50)]
    assert np.abs(b[chosen]).max() <= np.sort(np.abs(b))[54]


def test_groups_are_balanced_to_their_sizes():
    rng = np.random.default_rng(2)
    groups = rng.choice(3, size=3000, p=[0.6, 0.3, 0.1])
    chosen = ProbeBank(rng.normal(size=3000), groups=groups).choose(0.0, 200)
    assert np.bincount(groups[chosen]) / 200 == pytest.approx([0.6, 0.3, 0.1], abs=0.02)


def test_exposure_is_limited_over_sessions():
    bank = ProbeBank(np.random.default_rng(3).normal(size=100), max_exposures=2)
    for _ in range(4):
        bank.new_session()
        bank.choose(0.0, 45)
    assert bank.exposures.max() == 2
    bank.new_session()
    with pytest.raises(LookupError, match="no item is left"):
        bank.choose(0.0, 21)  # 200 exposures allowed, 180 spent
    assert bank.exposures.max() == 2


def test_a_bank_can_be_used_up():
    bank = ProbeBank([0.3, -0.2, 1.0], groups=["a", "b", "b"])
    assert sorted(bank.next(0.0) for _ in range(3)) == [0, 1, 2]
    with pytest.raises(LookupError):
        bank.next(0.0)


def test_adaptive_measurement_reaches_its_standard_error_with_fewer_items():
    truth = irt.simulate(1, 20_000, seed=4, sigma=1.5)
    bank, rng = ProbeBank(truth.b), np.random.default_rng(0)
    asked: list[int] = []
    right: list[int] = []
    theta, se = 0.0, np.inf
    while not enough(se, 0.25, len(asked)):
        asked.append(bank.next(theta))
        right.append(int(rng.random() < irt.probability(truth.theta[0], 1.0, truth.b[asked[-1]])))
        found = irt.ability([right], 1.0, truth.b[asked], estimator="map", theta_sd=2.0)
        theta, se = float(found.theta[0]), float(found.se[0])
    assert abs(theta - truth.theta[0]) < 3 * se
    average = irt.information(truth.theta[0], 1.0, truth.b).mean()  # of an item drawn at random
    assert len(asked) < 0.85 / (0.25**2 * average)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"b": []}, "one item"), ({"b": [0.0], "top": 0}, ">= 1"), ({"b": [0.0, np.nan]}, r"b\[1\]")],
)
def test_bad_banks_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ProbeBank(**options)
