"""Rows that repeat others: exact duplicates, ids used twice, evaluation items that are in the pool."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zpd_ray import schema
from zpd_ray.readers.rows import excerpt

ID_USED_TWICE = "item_id used twice"

_PLACE = [("source_file", "ascending"), ("source_row", "ascending")]


def drop_duplicates(items: pa.Table) -> tuple[pa.Table, int]:
    """One item of each content, that of the smallest (source_file, source_row), sorted by item_id; and how
    many were dropped. The result does not depend on the order of the rows.

    Two 64-bit keys are compared, content_hash and prompt_key: a collision of both is not a practical concern.
    """
    order = pc.sort_indices(
        items, sort_keys=[("content_hash", "ascending"), ("prompt_key", "ascending"), *_PLACE]
    ).to_numpy()
    content, prompt = _numpy(items, "content_hash")[order], _numpy(items, "prompt_key")[order]
    kept = order[_starts(content, prompt)]
    keys = items.select(["item_id", "source_file", "source_row"]).take(pa.array(kept))
    by_id = pc.sort_indices(keys, sort_keys=[("item_id", "ascending"), *_PLACE]).to_numpy()
    return items.take(pa.array(kept[by_id])), items.num_rows - len(kept)


def clashing_ids(items: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Items whose id stands for one content, sorted by id, and the quarantined others.

    Of several contents under one id, that of the smallest place keeps it. Call it before ``drop_duplicates``,
    on all rows of an id together: a content that loses its id here may live on under another.
    """
    items = items.sort_by([("item_id", "ascending"), *_PLACE])
    codes = pc.rank(items["item_id"].combine_chunks(), tiebreaker="dense").to_numpy(zero_copy_only=False)
    starts = _starts(codes)
    first = np.maximum.accumulate(np.where(starts, np.arange(len(starts)), 0))
    content, prompt = _numpy(items, "content_hash"), _numpy(items, "prompt_key")
    same = (content == content[first]) & (prompt == prompt[first])
    return items.filter(pa.array(same)), _quarantine(items.filter(pa.array(~same)))


def drop_overlap(items: pa.Table, prompt_keys: np.ndarray) -> tuple[pa.Table, int]:
    """Items whose prompt_key is not in ``prompt_keys`` (uint64, those of the evaluation set), and the number
    of items dropped."""
    overlaps = np.isin(_numpy(items, "prompt_key"), prompt_keys)
    return items.filter(pa.array(~overlaps)), int(overlaps.sum())


def _numpy(items: pa.Table, column: str) -> np.ndarray:
    return items[column].to_numpy()


def _starts(*keys: np.ndarray) -> np.ndarray:
    """bool (n,): where a run of equal keys starts, keys being sorted."""
    starts = np.ones(len(keys[0]), dtype=bool)
    if len(starts):
        starts[1:] = np.logical_or.reduce([key[1:] != key[:-1] for key in keys])
    return starts


def _quarantine(items: pa.Table) -> pa.Table:
    ids = items["item_id"].to_pylist()
    rows = {
        "source_file": items["source_file"],
        "source_row": items["source_row"],
        "reason": pa.array([ID_USED_TWICE] * len(ids), pa.string()),
        "detail": pa.array(
            [f"{item_id!r} is the id of another item with other content" for item_id in ids], pa.string()
        ),
        "content": pa.array([excerpt(text or "") for text in items["response"].to_pylist()], pa.string()),
    }
    return pa.table(rows, schema=schema.QUARANTINE)
