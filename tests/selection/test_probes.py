"""Which items are probes, and in which order they are asked."""

from __future__ import annotations

import numpy as np
import pytest

from zpd_ray.config import MeasureConfig
from zpd_ray.errors import ZpdError
from zpd_ray.matching import zpd_score
from zpd_ray.selection.probes import BANDS, most_probes, probe_order

N = 20_000


@pytest.fixture(scope="module")
def pool() -> tuple[np.ndarray, ...]:
    """b, information at 0, group (of 60, 30 and 10 %), draw."""
    rng = np.random.default_rng(0)
    b = rng.normal(0.5, 2.0, N)
    group = rng.choice(["x", "y", "z"], N, p=[0.6, 0.3, 0.1])
    return b, zpd_score(0.0, b), group, rng.uniform(size=N)


@pytest.mark.parametrize("first", [100, 500, 1000])
def test_every_start_of_the_order_is_spread_over_difficulty_and_groups(
    pool: tuple[np.ndarray, ...], first: int
) -> None:
    b, _, group, _ = pool
    order = probe_order(*pool)
    assert sorted(order.tolist()) == list(range(N))
    probes = order[:first]
    band = np.searchsorted(np.quantile(b, np.arange(1, BANDS) / BANDS), b[probes])
    assert np.abs(np.bincount(band) / first - 1 / BANDS).max() < 0.03
    for name in "xyz":
        assert abs((group[probes] == name).mean() - (group == name).mean()) < 0.03


def test_within_a_band_the_informative_come_first(pool: tuple[np.ndarray, ...]) -> None:
    b, information, _, _ = pool
    band = np.searchsorted(np.quantile(b, np.arange(1, BANDS) / BANDS), b)
    probes = probe_order(*pool)[:1000]
    for outer in (0, BANDS - 1):  # bands in which information differs most
        inside = probes[band[probes] == outer]
        assert information[inside].mean() > 1.2 * information[band == outer].mean()
        # ... and yet not the same few for every draw.
        assert np.unique(b[inside].round(1)).size > 10


def test_another_draw_gives_other_probes_and_the_same_draw_the_same(pool: tuple[np.ndarray, ...]) -> None:
    b, information, group, draw = pool
    order = probe_order(*pool)
    np.testing.assert_array_equal(order, probe_order(*pool))
    other = probe_order(b, information, group, draw[::-1])
    assert len(set(order[:500]) & set(other[:500])) < 150


@pytest.mark.parametrize(("items", "probes", "expected"), [(10**6, 1000, 1000), (5000, 1000, 200)])
def test_probes_are_few(items: int, probes: int, expected: int) -> None:
    assert most_probes(MeasureConfig(scope="zone", probes=probes), items) == expected


def test_too_few_are_refused_but_in_scope_pool() -> None:
    with pytest.raises(ZpdError, match="expected 10 or more"):
        most_probes(MeasureConfig(scope="probe"), 200)
    most_probes(MeasureConfig(scope="pool"), 200)
