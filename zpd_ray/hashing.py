"""Random numbers that depend on a key alone, whatever was drawn before or in which order.

SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA): a finaliser
over a Weyl sequence, so that draw t of stream k is a pure function of (k, t) and arrays of them are one
expression.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: uint64 array -> uint64 array, one to one."""
    x = x ^ (x >> np.uint64(30))  # an array of our own: the rest is done in place
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def item_keys(item_ids: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """uint64 (n,): a hash of each id's bytes, the same in every process and version."""
    chunks = item_ids.chunks if isinstance(item_ids, pa.ChunkedArray) else [item_ids]
    return np.concatenate([np.zeros(0, dtype=np.uint64), *(_hashes(chunk) for chunk in chunks)])


def _hashes(names: pa.Array) -> np.ndarray:
    """Length and 8-byte words of each string, mixed one after the other."""
    names = names.cast(pa.large_string())  # one width of offsets, whatever came; a slice may stay one
    _, offsets, data = names.buffers()
    ends = np.frombuffer(offsets, np.int64)[names.offset : names.offset + len(names) + 1]
    first, last = (int(ends[0]), int(ends[-1])) if len(names) else (0, 0)
    padding = np.zeros(8, np.uint8)
    text = np.concatenate([np.frombuffer(data, np.uint8)[first:last], padding]) if last > first else padding
    # The word that starts at each byte; a view, so no address need be a multiple of 8.
    words = np.ndarray((len(text) - 7,), dtype="<u8", buffer=text, strides=(1,))
    starts, lengths = ends[:-1] - first, np.diff(ends)
    keys = mix(lengths.astype(np.uint64) + GOLDEN)
    of_all = int(lengths.min()) // 8 if len(names) else 0  # so many whole words has each string
    for word in range(of_all):
        keys = mix((keys ^ words[starts + 8 * word]) + GOLDEN)
    for word in range(of_all, -(-int(lengths.max(initial=0)) // 8)):
        rows = np.flatnonzero(lengths > 8 * word)
        value = words[starts[rows] + 8 * word].astype(np.uint64)
        beyond = np.clip(8 * (word + 1) - lengths[rows], 0, 7).astype(np.uint64) * np.uint64(8)
        value = (value << beyond) >> beyond  # bytes of the next string are not ours
        keys[rows] = mix((keys[rows] ^ value) + GOLDEN)
    return keys


def streams(keys: np.ndarray, *coordinates: int) -> np.ndarray:
    """uint64 (n,): the key of each item's stream at these coordinates (seed, stage, rollout, ...)."""
    for coordinate in coordinates:
        keys = mix(keys + GOLDEN * np.asarray([coordinate + 1], dtype=np.uint64))
    return keys


def uniforms(keys: np.ndarray, draw: int = 0) -> np.ndarray:
    """float64 (n,) in (0, 1): draw number ``draw`` of each stream, on the midpoints of a grid of 2^52."""
    bits = mix(keys + GOLDEN * np.asarray([draw + 1], dtype=np.uint64))
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
