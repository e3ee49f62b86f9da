"""Random numbers that depend on a key alone, whatever was drawn before or in which order.

SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA): a finaliser
over a Weyl sequence, so that draw t of stream k is a pure function of (k, t) and arrays of them are one
expression.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: uint64 array -> uint64 array, one to one."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def item_keys(item_ids: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """uint64 (n,): a hash of each id, the same in every process."""
    names = item_ids.to_numpy(zero_copy_only=False) if isinstance(item_ids, pa.Array) else item_ids.to_numpy()
    return pd.util.hash_array(names.astype(object), categorize=False)


def streams(keys: np.ndarray, *coordinates: int) -> np.ndarray:
    """uint64 (n,): the key of each item's stream at these coordinates (seed, stage, rollout, ...)."""
    for coordinate in coordinates:
        keys = mix(keys + GOLDEN * np.asarray([coordinate + 1], dtype=np.uint64))
    return keys


def uniforms(keys: np.ndarray, draw: int = 0) -> np.ndarray:
    """float64 (n,) in (0, 1): draw number ``draw`` of each stream, on the midpoints of a grid of 2^52."""
    bits = mix(keys + GOLDEN * np.asarray([draw + 1], dtype=np.uint64))
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
