"""Sort keys: one unsigned 64-bit integer per item, smallest first, ties by item id."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zpd_ray.hashing import item_keys, streams

Keys = NDArray[np.uint64]

HASH_BITS = 20
_HASH_BITS, _SIGN = np.uint64(HASH_BITS), np.uint64(63)


def item_hash(item_id: pa.ChunkedArray, seed: int, stage: int, purpose: str) -> Keys:
    """Seeded hash of each id: shape (n,). Another purpose, stage or seed gives an unrelated order."""
    return shuffled(item_keys(item_id), seed, stage, purpose)


def shuffled(keys: Keys, seed: int, stage: int, purpose: str) -> Keys:
    """``item_hash`` of the items with these ``item_keys``."""
    return streams(keys, seed, stage, int(item_keys(pa.array([purpose]))[0] >> np.uint64(1)))


def sort_key(score: NDArray[np.float64], hashes: Keys) -> Keys:
    """Key of items with any finite or infinite scores: best score first, equal ones in order of their hashes.

    The upper 44 bits are those of the score as a float64 whose unsigned order is the order of the numbers,
    counted down: sign, exponent and 32 bits of the fraction, so scores closer than a ten-billionth of
    themselves count as equal. The lower 20 are the hash's. score: no NaN.
    """
    bits = np.asarray(score + 0.0, dtype=np.float64).view(np.uint64)  # + 0.0: -0.0 is 0.0
    # Negative numbers order backwards by their bits: all bits turn; of the others the sign alone.
    ascending = np.where(bits >> _SIGN, ~bits, bits | (np.uint64(1) << _SIGN))
    return ~ascending >> _HASH_BITS << _HASH_BITS | hashes >> np.uint64(64 - HASH_BITS)


def same_score(keys: Keys, key: int) -> NDArray[np.bool_]:
    """Which keys are of items with the score of ``key``, which hashes alone tell from it: (n,)."""
    return keys >> _HASH_BITS == np.uint64(key) >> _HASH_BITS
