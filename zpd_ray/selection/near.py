"""Near duplicates: items whose texts share most of their characters, by MinHash and bands.

A text is the set of its runs of 5 characters (shingles: Broder 1997, "On the resemblance and containment of
documents"). MinHash estimates how much two sets have in common over what they have together (Jaccard). 128
values in 16 bands of 8: where two texts have the share s in common, they share a band with the probability
1 - (1 - s^8)^16, .06 at s = .5, .61 at .7, .95 at .8 and 1.0 at .9 (Leskovec, Rajaraman and Ullman, Mining of
Massive Datasets, chapter 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zpd_ray.errors import ZpdError
from zpd_ray.hashing import mix, streams
from zpd_ray.selection.keys import Keys

BANDS, ROWS = 16, 8
SHINGLE = 5  # characters
COLUMNS = pa.schema([(f"band_{band:02d}", pa.uint64()) for band in range(BANDS)])


def check_library() -> None:
    """Raises ZpdError where MinHash is not installed."""
    if find_spec("datasketch") is None:
        raise ZpdError(
            "select.diverse.near_duplicates needs the package datasketch, which is not installed here; "
            'install it on every node (pip install "zpd-ray[diverse]"), or leave the key out'
        )


def texts_of(items: pa.Table) -> list[str]:
    """Prompt and response of each item (``schema.ITEM``), tool calls included, case and runs of white space
    aside."""
    rows = items.select(["messages", "response", "response_more"]).to_pylist()
    joined = (" ".join(_said(row)) for row in rows)
    return [" ".join(text.lower().split()) for text in joined]


def _said(row: dict[str, Any]) -> Iterator[str]:
    for turn in row["messages"] or ():
        yield from filter(None, (turn["content"], turn["more"]))
    yield from filter(None, (row["response"], row["response_more"]))


def shingles(text: str) -> NDArray[np.uint32]:
    """A hash of each run of 5 characters, each once; of a shorter text one hash."""
    if not text:
        return np.zeros(0, dtype=np.uint32)
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)
    length = min(SHINGLE, len(codes))
    hashes = np.zeros(len(codes) - length + 1, dtype=np.uint64)
    for start in range(length):
        hashes = mix(hashes + codes[start : start + len(hashes)] + np.uint64(1))
    return np.unique((hashes >> np.uint64(32)).astype(np.uint32))


def band_keys(texts: Iterable[str]) -> Keys:
    """A key of each band of each text, (n, 16): equal where texts agree in all 8 values of the band."""
    from datasketch import MinHash

    sketches = MinHash.generator(
        (shingles(text).tolist() for text in texts),
        num_perm=BANDS * ROWS,
        seed=1,
        scheme="affine32",
        hashfunc=lambda value: value,
    )
    values = np.array([sketch.hashvalues for sketch in sketches], dtype=np.uint64).reshape(-1, BANDS, ROWS)
    keys = np.broadcast_to(np.arange(BANDS, dtype=np.uint64), values.shape[:2])
    for row in range(ROWS):
        keys = mix(streams(keys, row) + values[:, :, row])
    return keys


def crowded(band: Keys, key: Keys, place: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Places of items that share a band with ``most`` or more better ones: ascending, each once.

    band, key, place: (m,), a row for each band of each item: the band, the item's sort key (smallest first),
    and where it is; ties by place. A better item counts whether it is left out itself or not.
    """
    order = np.lexsort((place, key, band))
    sorted_bands = band[order]
    starts = np.flatnonzero(np.append(True, sorted_bands[1:] != sorted_bands[:-1])[: len(order)])
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return np.unique(place[order[rank >= most]])
