"""Counts add over blocks to the same bits, in any order."""

from __future__ import annotations

import json

import numpy as np
import pytest

from zpd_ray.irt import Counts, fit_explanatory


def pool(n=20_000):
    rng = np.random.default_rng(0)
    bins, groups = rng.integers(-200, 60, n), rng.integers(0, 3, n)
    trials = rng.integers(1, 5, n)
    return {"bin": bins, "group": groups, "successes": rng.binomial(trials, 0.4), "trials": trials}


def test_shuffled_blocks_give_bitwise_equal_counts_and_fits():
    columns = pool()
    whole = Counts.of(**columns)
    rng = np.random.default_rng(1)
    order = rng.permutation(columns["bin"].size)
    cuts = np.sort(rng.integers(0, order.size, 13))
    parts = [
        Counts.of(**{name: column[rows] for name, column in columns.items()})
        for rows in np.split(order, cuts)
    ]
    merged = Counts.merge(parts[::-1])
    assert merged.to_dict() == whole.to_dict()
    fits = [
        fit_explanatory(c["successes"][None], c["trials"][None], c["bin"][:, None] / 64, freq=c.freq)
        for c in (whole, merged)
    ]
    for name in ("theta", "theta_se", "gamma", "gamma_se", "sigma", "sigma_se", "loglik", "grad_norm"):
        assert np.array_equal(getattr(fits[0], name), getattr(fits[1], name)), name


def test_counts_survive_json_and_stay_sorted():
    counts = Counts.of(**pool(500))
    again = Counts.from_dict(json.loads(json.dumps(counts.to_dict())))
    assert again.to_dict() == counts.to_dict()
    rows = np.stack(list(counts.columns.values()))
    assert np.array_equal(np.lexsort(rows[::-1]), np.arange(counts.freq.size))
    assert counts.n_items == 500


def test_empty_counts_are_neutral():
    counts = Counts.of(**pool(50))
    empty = Counts.of(**pool(0))
    assert empty.freq.size == 0
    assert (counts + empty).to_dict() == counts.to_dict()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"bin": [0.5], "trials": [1]}, "integer"),
        ({"bin": [0, 1], "trials": [1]}, "one length"),
        ({"bin": [0], "successes": [2], "trials": [1]}, "row 0 has 2 of 1"),
    ],
)
def test_bad_counts_are_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        Counts.of(**columns)


def test_counts_of_other_columns_do_not_add():
    with pytest.raises(ValueError, match="same columns"):
        Counts.of(before=[1], now=[2]) + Counts.of(bin=[1])
