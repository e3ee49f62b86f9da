"""A stage's selection in training order: one deterministic shard per train worker."""

from __future__ import annotations

from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import ray

from zpd_ray.pipeline.cluster import parts
from zpd_ray.rundir.selected import read_selected
from zpd_ray.rundir.store import Store
from zpd_ray.selection.keys import item_hash


def share_of(rows: int, worker: int, workers: int) -> int:
    """How many of ``rows`` have rank modulo ``workers`` equal to ``worker``."""
    return rows // workers + (worker < rows % workers)


def ordered_shards(
    store: Store, selected: str, seed: int, stage: int, epochs: int, rows: list[int]
) -> list[ray.data.Dataset]:
    """One materialised dataset per worker, of ``rows[worker]`` rows, in training order.

    Worker = rank modulo workers, so that every worker sees the whole range of scores; within a worker, epoch
    after epoch, each in the order of a seeded hash of the item id. Nothing depends on blocks or on timing.
    What ranks beyond the sum of ``rows`` is left out.
    """
    deal = partial(_deal, store, selected, seed, stage, epochs, len(rows), sum(rows) // epochs)
    ordered = parts.tables(store.names(selected), deal).sort(["worker", "epoch", "order", "rank"])
    if len(rows) == 1:
        return [ordered.materialize()]
    ends = [sum(rows[: i + 1]) for i in range(len(rows) - 1)]
    return list(ordered.split_at_indices(ends))


def _deal(
    store: Store, selected: str, seed: int, stage: int, epochs: int, workers: int, most: int, name: str
) -> pa.Table:
    """Rows of one selected part, once per epoch, with the columns they are sorted by."""
    items = read_selected(store, f"{selected}/{name}", ["item_id", "rank"])
    items = items.filter(pc.less(items["rank"], most))
    rank = items["rank"].to_numpy()
    tables = []
    for epoch in range(epochs):
        order = item_hash(items["item_id"], seed, stage, f"train epoch {epoch}")
        dealt = items.append_column("worker", pa.array(rank % workers))
        dealt = dealt.append_column("epoch", pa.array([epoch] * len(rank), pa.int64()))
        # Ray sorts int64; dropping the lowest bit keeps the order.
        tables.append(dealt.append_column("order", pc.cast(pa.array(order >> 1), pa.int64())))
    return pa.concat_tables(tables)
