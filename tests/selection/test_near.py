"""Near duplicates: bands against what MinHash promises, and who is left out against a plain count."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zpd_ray import schema
from zpd_ray.selection.near import BANDS, ROWS, SHINGLE, band_keys, crowded, shingles, texts_of

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrst"]


def runs(text: str) -> set[str]:
    return {text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1))} if text else set()


def test_shingles_are_the_runs_of_five_characters_each_once() -> None:
    for text in ("", "a", "abcd", "abcde", "abcdef", "aaaaaaaaa", "naïve 東京都の 😀!", " ".join(WORDS)):
        assert len(shingles(text)) == len(runs(text))
    assert len(np.intersect1d(shingles("xxabcdexx"), shingles("yyabcdeyy"))) == 1


def changed(words: list[str], share: float, rng: np.random.Generator) -> str:
    return " ".join(rng.choice(WORDS) if rng.random() < share else word for word in words)


def test_texts_share_a_band_as_often_as_their_likeness_says() -> None:
    pytest.importorskip("datasketch")
    rng = np.random.default_rng(0)
    texts = [
        text
        for share in np.repeat([0.02, 0.05, 0.1, 0.2, 0.5], 60)
        for words in [rng.choice(WORDS, 60).tolist()]
        for text in (" ".join(words), changed(words, share, rng))
    ]
    keys = band_keys(texts)
    met = (keys[::2] == keys[1::2]).any(axis=1)
    pairs = [(runs(a), runs(b)) for a, b in zip(texts[::2], texts[1::2], strict=True)]
    expected = np.array([1 - (1 - (len(a & b) / len(a | b)) ** ROWS) ** BANDS for a, b in pairs])
    assert 0.2 < expected.mean() < 0.8
    assert abs(met.mean() - expected.mean()) < 3 * np.sqrt((expected * (1 - expected)).mean() / len(met))
    assert met[expected > 0.999].all()
    assert not met[expected < 0.001].any()
    assert len(np.unique(keys[0])) == BANDS


def test_case_and_white_space_are_no_difference() -> None:
    messages = [
        [{"role": "user", "content": "What is\n 1 + 1?"}],
        [{"role": "user", "content": "what IS 1 + 1?"}],
    ]
    rows = [{"item_id": str(i), "messages": m, "response": "It is  2"} for i, m in enumerate(messages)]
    assert texts_of(pa.Table.from_pylist(rows, schema=schema.ITEM)) == ["what is 1 + 1? it is 2"] * 2


@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 3), st.data())
@settings(max_examples=60)
def test_those_are_left_out_that_share_a_band_with_so_many_better_ones(
    n: int, n_bands: int, most: int, data: st.DataObject
) -> None:
    bands = np.array(data.draw(st.lists(st.integers(0, 5), min_size=n * n_bands, max_size=n * n_bands)))
    bands = bands.reshape(n, n_bands) + 10 * np.arange(n_bands)  # a band's key tells the band, too
    keys = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)), dtype=np.uint64)
    expected = []
    for i in range(n):
        better = [j for j in range(n) if (keys[j], j) < (keys[i], i)]
        if any(sum(bands[j, band] == bands[i, band] for j in better) >= most for band in range(n_bands)):
            expected.append(i)
    order = data.draw(st.permutations(range(n * n_bands)))
    columns = (bands.ravel().astype(np.uint64), np.repeat(keys, n_bands), np.repeat(np.arange(n), n_bands))
    assert crowded(*(column[order] for column in columns), most).tolist() == expected


def test_nobody_is_left_out_of_nothing() -> None:
    none = np.zeros(0, dtype=np.uint64)
    assert len(crowded(none, none, none.astype(np.int64), 1)) == 0
