"""A pool and a selection of it, as the steps before training leave them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from zpd_ray import schema
from zpd_ray.rundir import Store
from zpd_ray.rundir.records import Selection, save_selection
from zpd_ray.rundir.row_groups import GROUP_ROWS

STAGE = "stages/00"


def item(i: int) -> dict[str, Any]:
    return {
        "item_id": f"item {i}",
        "messages": [{"role": "user", "content": f"Weng sold {i} clips."}],
        "response": f"{i * 7 % 5} clips in May" + " and then" * (i % 3),
    }


def write_selection(store: Store, n: int, files: int = 2, parts: int = 3) -> None:
    """A pool of ``n`` items in ``parts`` parts, and a selection of them all in ``files`` files."""
    place = {}
    for part, numbers in enumerate(np.array_split(np.random.default_rng(0).permutation(n), parts)):
        name = f"part-{part:06d}.parquet"
        table = pa.Table.from_pylist([item(i) for i in numbers], schema=schema.ITEM)
        store.write_table(f"pool/{name}", table, GROUP_ROWS)
        place |= {i: {"part": name, "row": row} for row, i in enumerate(numbers.tolist())}
    known = {"prompt_tokens": 6, "response_tokens": 4, "own": False}
    rows = [{"item_id": f"item {i}", "rank": i} | known | place[i] for i in range(n)]
    ranks = pa.Table.from_pylist(rows, schema=schema.RANK)
    for index, some in enumerate(np.array_split(np.arange(n), files)):
        store.write_table(f"{STAGE}/selected/part-{index:06d}.parquet", ranks.take(some))
    save_selection(store, STAGE, Selection(n, n, 0, 0, 0, 0.0, 0.5, {}, n, "items", []))
