"""A stage's selection in training order: one deterministic shard per train worker.

What is sorted and dealt are places of items, some 110 bytes each. Their texts are read from the pool while
training goes on, a little ahead of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from zpd_ray import schema
from zpd_ray.pipeline.cluster import parts
from zpd_ray.rundir import Run
from zpd_ray.rundir.places import pieces
from zpd_ray.rundir.selected import due
from zpd_ray.rundir.store import Store
from zpd_ray.selection.keys import item_hash

# Rows that a task reads for its worker, in pieces of some 16 MB (``places.pieces``). The more, the more of
# them lie in one part, and in one row group of it, which is then read once for all; the fewer, the sooner the
# first batch is there. A small selection is one task, which opens each part once for all epochs. Of 500,000
# rows chosen from 100 parts of 100,000 a task finds 80 in a part, in 67 of its 195 row groups. Of a pool that
# is larger by far every row has a row group of its own, and no number of rows that fits in memory changes
# that: there row groups are small (``rundir.row_groups``), and requests many at a time (``places.READERS``).
ROWS_AT_ONCE = 8192
TASKS_AHEAD = 2  # of a worker: what it takes next is read while it trains on what is there
BLOCK_BYTES = 1 << 25  # in which a task hands out what it has read: the first batch waits for no more
AHEAD_BYTES = 1 << 28  # of a worker's rows that may wait for it in Ray's object store
PLACES = [name for name in schema.PLACE.names if name != "group"]
CARRIED = ["item_id", "rank", "worker", "epoch", "order"]


def share_of(rows: int, worker: int, workers: int) -> int:
    """How many of ``rows`` have rank modulo ``workers`` equal to ``worker``."""
    return rows // workers + (worker < rows % workers)


def ordered_shards(run: Run, selected: str, stage: int, epochs: int, rows: list[int]) -> list[Dataset]:
    """One dataset of places per worker, of ``rows[worker]`` rows, in training order: for ``with_texts``.

    selected: the directory of the selection, which ``stage`` trains on. Worker = rank modulo workers, so that
    every worker sees the whole range of scores; within a worker, epoch after epoch, each in the order of a
    seeded hash of the item id. Nothing depends on blocks or on timing. What ranks beyond the sum of ``rows``
    is left out.
    """
    most = sum(rows) // epochs
    deal = partial(_deal, run.store, selected, run.config.seed, stage, epochs, len(rows), most)
    ordered = parts.tables(run.store.names(selected), deal).sort(["worker", "epoch", "order", "rank"])
    # What tasks give comes in the order of the tasks, and those take blocks in their order; else it comes as
    # it is finished (ReorderingBundleQueue in ray/data/_internal/execution/operators/map_operator.py).
    ordered.context.execution_options.preserve_order = True
    ends = [sum(rows[: i + 1]) for i in range(len(rows) - 1)]
    shards = ordered.split_at_indices(ends) if ends else [ordered]
    return [_in_blocks(shard) for shard in shards]


def _in_blocks(places: Dataset) -> Dataset:
    """The same places in blocks of ``ROWS_AT_ONCE``, of which a task takes one: sorting leaves any sizes."""
    return places.repartition(target_num_rows_per_block=ROWS_AT_ONCE, strict=True).materialize()


def _deal(
    store: Store, selected: str, seed: int, stage: int, epochs: int, workers: int, most: int, name: str
) -> pa.Table:
    """Places in one file of a selection, once per epoch, with the columns they are sorted by."""
    items = store.read_table(f"{selected}/{name}", [*PLACES, "rank"])
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


def from_row(places: Dataset, first: int) -> Dataset:
    """The same places without the ``first`` ones, so that nobody reads texts to throw them away."""
    return places.split_at_indices([first])[1] if first else places


def with_texts(run: Run, stage: int, places: Dataset) -> Dataset:
    """The items at places, in the same order, read by tasks as who goes through them asks for more.

    Columns: ``selected.TURNS`` and ``CARRIED``. Made by the worker, for a while: libraries that look through
    all that a loop holds (``datasets`` hashes it with dill) do not get through the tasks' functions.

    Tasks run on the worker's node and ask for no CPU. One whose rows wait for the worker would keep the CPU,
    and where CPUs are few another worker's task would wait for it, with the worker that all others wait for.
    """

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)

    def read(some: pa.Table) -> Iterator[pa.Table]:
        for piece in pieces(some):
            yield due(run, stage, piece, CARRIED)

    rows = places.map_batches(
        read,
        batch_size=ROWS_AT_ONCE,
        batch_format="pyarrow",
        udf_modifying_row_count=False,
        num_cpus=0,
        concurrency=TASKS_AHEAD,
        ray_remote_args_fn=lambda: {"scheduling_strategy": here},
    )
    options = rows.context.execution_options
    options.preserve_order = True  # as above
    options.resource_limits = options.resource_limits.copy(object_store_memory=AHEAD_BYTES)
    rows.context.target_max_block_size = BLOCK_BYTES
    return rows
