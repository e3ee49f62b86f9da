"""Histograms of which only what is not 0 is held: those of ``top.histogram``, over any blocks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from zpd_ray.selection.counts import Counts, count, summed
from zpd_ray.selection.top import Prefix, histogram

PREFIXES = {
    0: [Prefix()],
    1: [Prefix(3, 1), Prefix(4, 1), Prefix(65535, 1)],
    2: [Prefix(0x3_0000, 2), Prefix(0x3_0001, 2), Prefix(0x4_0001, 2)],
}


def items() -> tuple[np.ndarray, np.ndarray]:
    """Keys that share first digits, and weights beyond the precision of floats."""
    rng = np.random.default_rng(2)
    keys = rng.integers(2, 6, 4000, dtype=np.uint64) << np.uint64(48)
    keys |= rng.integers(0, 3, 4000, dtype=np.uint64) << np.uint64(32)
    keys |= rng.integers(0, 2**32, 4000, dtype=np.uint64)
    return keys, rng.integers(0, 2**50, 4000)


@pytest.mark.parametrize("depth", PREFIXES)
def test_counts_after_prefixes_are_dense_histograms_whatever_the_blocks(depth: int) -> None:
    (keys, weight), prefixes = items(), PREFIXES[depth]
    whole = count(prefixes, keys, weight)
    blocks = Counts.add(count(prefixes, keys[b], weight[b]) for b in (slice(7), slice(7, 7), slice(7, None)))
    for counts in (whole, blocks):
        for place, prefix in enumerate(prefixes):
            assert_array_equal(counts.histogram(place), histogram(keys, weight, prefix))
    assert (whole.rows > 0).all()


@pytest.mark.parametrize("apart", [1, 10**9])
def test_sums_are_the_same_near_together_and_far_apart(apart: int) -> None:
    at = np.array([5, 2, 5, 9, 2]) * apart
    found = summed(at, np.array([1, 2, 3, 4, 5]), np.array([10, 0, 30, 2**60, 1]))
    assert found.at.tolist() == [2 * apart, 5 * apart, 9 * apart]
    assert found.rows.tolist() == [7, 4, 4]
    assert found.weight.tolist() == [1, 40, 2**60]
