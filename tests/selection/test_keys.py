"""Sort keys: best score first, then the hash; the hash is the item's own."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal
from scipy.stats import kstest

from zpd_ray.selection.keys import item_hash, sort_key

IDS = [f"item-{i}" for i in range(20_000)]


def ids(values: list[str], chunks: int = 1) -> pa.ChunkedArray:
    pieces = [pa.array(list(part), pa.string()) for part in np.array_split(np.array(values, object), chunks)]
    return pa.chunked_array(pieces, pa.string())


def test_hash_is_the_items_own_whatever_block_it_is_in() -> None:
    whole = item_hash(ids(IDS), 1, 2, "select")
    assert whole.dtype == np.uint64
    assert_array_equal(item_hash(ids(IDS, chunks=13), 1, 2, "select"), whole)
    backwards = item_hash(ids(IDS[::-1]), 1, 2, "select")
    assert_array_equal(backwards[::-1], whole)
    alone = [item_hash(ids([name]), 1, 2, "select")[0] for name in IDS[:20]]
    assert_array_equal(alone, whole[:20])


def test_hash_does_not_change_between_versions() -> None:
    """A run resumed with another version of a dependency must see the same order."""
    assert_array_equal(
        item_hash(ids(["a", "item-1", "数学"]), 0, 0, "select"),
        np.array([4931552817019031318, 1502315920384029014, 3840647729628360858], np.uint64),
    )


@pytest.mark.parametrize("other", [(1, 0, "select"), (0, 1, "select"), (0, 0, "replay")])
def test_another_seed_stage_or_purpose_gives_an_unrelated_order(other: tuple[int, int, str]) -> None:
    one, two = item_hash(ids(IDS), 0, 0, "select"), item_hash(ids(IDS), *other)
    assert not (one == two).any()
    correlation = np.corrcoef(one.astype(float), two.astype(float))[0, 1]
    assert abs(correlation) < 4 / np.sqrt(len(IDS))


def test_hashes_are_uniform_and_distinct() -> None:
    hashes = item_hash(ids(IDS), 7, 0, "select")
    assert len(np.unique(hashes)) == len(IDS)
    assert kstest(hashes / 2.0**64, "uniform").pvalue > 1e-3


def test_no_ids_have_no_hashes() -> None:
    assert item_hash(ids([]), 0, 0, "select").shape == (0,)


def test_hash_is_that_of_the_whole_string_wherever_it_lies_in_memory() -> None:
    """Lengths around the eight bytes that are read at a time, in any order and in slices."""
    rng = np.random.default_rng(3)
    names = ["", "\0", "\0\0", *("x" * n for n in range(1, 26)), *("x" * n + "\0" for n in range(1, 26))]
    names += ["x" * n + "y" for n in range(26)] + ["y" + "x" * n for n in range(1, 26)]
    whole = dict(zip(names, item_hash(ids(names), 0, 0, "select").tolist(), strict=True))
    assert len(set(whole.values())) == len(names)
    for _ in range(20):
        order = [names[i] for i in rng.permutation(len(names))]
        start = int(rng.integers(0, len(order)))
        found = item_hash(ids(order).slice(start), 0, 0, "select").tolist()
        assert found == [whole[name] for name in order[start:]]


def test_keys_sort_by_score_then_by_hash() -> None:
    rng = np.random.default_rng(0)
    score = rng.integers(0, 40, 5000) / 160  # many ties in [0, 1/4)
    hashes = item_hash(ids(IDS[:5000]), 0, 0, "select")
    assert_array_equal(np.argsort(sort_key(score, hashes)), np.lexsort((hashes, -score)))


def test_scores_a_billionth_apart_are_told_apart() -> None:
    score = np.array([0.125, 0.125 + 1e-9])
    key = sort_key(score, np.array([0, 2**64 - 1], np.uint64))
    assert key[1] < key[0]


@pytest.mark.parametrize("scale", [1e-300, 1e-3, 1.0, 1e12, 1e300])
def test_any_scale_of_scores_keeps_their_order(scale: float) -> None:
    rng = np.random.default_rng(0)
    score = np.concatenate([rng.normal(size=2000) * scale, [0.0, np.inf, -np.inf]])
    keys = sort_key(score, np.zeros(len(score), np.uint64))
    assert_array_equal(score[np.argsort(keys, kind="stable")], -np.sort(-score))


def test_zero_has_one_key_whatever_its_sign() -> None:
    keys = sort_key(np.array([0.0, -0.0]), np.array([7, 7], np.uint64) << np.uint64(60))
    assert keys[0] == keys[1]


def test_equal_scores_are_in_no_order_of_their_own() -> None:
    """A constant score is a uniform draw: the hash alone decides."""
    hashes = item_hash(ids(IDS), 0, 0, "select")
    keys = sort_key(np.full(len(IDS), 0.25), hashes)
    assert kstest((keys & np.uint64(2**20 - 1)) / 2.0**20, "uniform").pvalue > 1e-3
