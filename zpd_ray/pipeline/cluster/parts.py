"""Work over the parts of the pool: Ray Data tasks, one part at a time.

A part is a parquet file with a fixed name and content, so what is computed from it does not depend on how
many workers there are, nor on the order in which they finish; and a part whose result is on disk is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import ray

# Beyond this many blocks the scheduler's bookkeeping costs more than the balance it buys.
MAX_BLOCKS = 10_000
# A task costs the driver some 10 ms: where parts are many, a task takes several.
BLOCKS_PER_CPU = 8


def part_name(index: int) -> str:
    """File name of a part."""
    return f"part-{index:06d}.parquet"


def dataset_of(parts: list[str], blocks: int = MAX_BLOCKS) -> ray.data.Dataset:
    """A dataset with one row per part, in at most so many blocks."""
    rows = [{"part": part} for part in parts]
    return ray.data.from_items(rows, override_num_blocks=min(len(parts), blocks, MAX_BLOCKS))


def tables(parts: list[str], function: Callable[[str], pa.Table]) -> ray.data.Dataset:
    """The rows that ``function`` makes of each part, as a dataset (lazy)."""

    def each(batch: pa.Table) -> pa.Table:
        return function(batch["part"][0].as_py())

    return dataset_of(parts, _task_blocks()).map_batches(each, batch_size=1, batch_format="pyarrow")


def results(parts: list[str], function: Callable[[str], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One small row per part, in the order in which tasks finish."""

    def each(row: dict[str, Any]) -> dict[str, Any]:
        return function(row["part"])

    if parts:
        yield from dataset_of(parts, _task_blocks()).map(each).iter_rows()


def sums(parts: list[str], function: Callable[[list[str]], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One small row per task, which ``function`` makes of all parts that the task has."""

    def each(batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([function(batch["part"].to_pylist())])

    if parts:
        tasks = dataset_of(parts, _task_blocks())
        yield from tasks.map_batches(each, batch_size=None, batch_format="pyarrow").iter_rows()


def _task_blocks() -> int:
    return max(1, int(BLOCKS_PER_CPU * ray.cluster_resources().get("CPU", 1)))
