"""Sort keys: one unsigned 64-bit integer per item, smallest first, ties by item id."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zpd_ray.hashing import item_keys, streams

Keys = NDArray[np.uint64]

_HASH_BITS = np.uint64(32)
_SCORE_STEPS = float(2**32 - 1)


def item_hash(item_id: pa.ChunkedArray, seed: int, stage: int, purpose: str) -> Keys:
    """Seeded hash of each id: shape (n,). Another purpose, stage or seed gives an unrelated order."""
    return shuffled(item_keys(item_id), seed, stage, purpose)


def shuffled(keys: Keys, seed: int, stage: int, purpose: str) -> Keys:
    """``item_hash`` of the items with these ``item_keys``."""
    return streams(keys, seed, stage, int(item_keys(pa.array([purpose]))[0] >> np.uint64(1)))


def sort_key(score: NDArray[np.float64], upper: float, hashes: Keys) -> Keys:
    """Key of items with scores in [0, upper]: best score first, equal scores in the order of their hashes.

    The upper 32 bits are the score counted down in steps of upper / 2^32, the lower 32 are the hash's.
    """
    down = np.floor((1.0 - np.clip(score / upper, 0.0, 1.0)) * _SCORE_STEPS).astype(np.uint64)
    return (down << _HASH_BITS) | (hashes >> _HASH_BITS)
