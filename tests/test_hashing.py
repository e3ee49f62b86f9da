"""Hashes of ids: by the formula, whatever the other ids of the block."""

from __future__ import annotations

import pyarrow as pa
import pytest

from zpd_ray.hashing import item_keys

WORD = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(x: int) -> int:
    """SplitMix64's finaliser, by Python's integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)


def plain(text: str) -> int:
    data = text.encode()
    key = mix((len(data) + GOLDEN) & WORD)
    for at in range(0, len(data), 8):
        word = int.from_bytes(data[at : at + 8], "little")
        key = mix(((key ^ word) + GOLDEN) & WORD)
    return key


@pytest.mark.parametrize(
    "ids",
    [
        [f"{i:032x}" for i in range(50)],  # whole words all
        [f"{i:033x}" for i in range(50)],
        ["x" * (i % 40) for i in range(80)],
        ["", "é", "12345678", "123456789", "a" * 100],
        [],
    ],
)
def test_keys_are_those_of_the_formula(ids: list[str]) -> None:
    keys = item_keys(pa.chunked_array([pa.array(ids, pa.string())]))
    assert keys.tolist() == [plain(text) for text in ids]
    assert item_keys(pa.array(ids, pa.string()).slice(1)).tolist() == keys[1:].tolist()
