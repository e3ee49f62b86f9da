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


def test_columns_too_wide_to_number_are_counted_all_the_same():
    """Twenty stages of sixteen rollouts: 17^40 combinations, of which a few hundred are there."""
    rng = np.random.default_rng(5)
    patterns = rng.integers(0, 17, (300, 40))
    rows = patterns[rng.integers(0, 300, 5000)]
    rows[:, 0] += rng.choice([0, 2**60], 5000)  # and a column with a wide range of its own
    columns = {f"c{i}": rows[:, i] for i in range(40)}
    counts = Counts.of(**columns)
    cells, freq = np.unique(rows, axis=0, return_counts=True)
    np.testing.assert_array_equal(np.stack([counts[f"c{i}"] for i in range(40)], axis=1), cells)
    np.testing.assert_array_equal(counts.freq, freq)
    halves = [
        Counts.of(**{name: c[part] for name, c in columns.items()}) for part in np.split(np.arange(5000), 2)
    ]
    merged = Counts.merge(halves)
    assert merged.to_dict() == counts.to_dict()
