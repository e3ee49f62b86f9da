"""Work over the parts of the pool, one part at a time: sums by tasks of Ray's own, rows by those of Ray Data.

A part is a parquet file with a fixed name and content, so what is computed from it does not depend on how
many workers there are, nor on the order in which they finish; and a part whose result is on disk is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from ray.exceptions import RayTaskError

from zpd_ray.pipeline.cluster.failures import user_error

T = TypeVar("T")

# A task takes several parts where these are many; so many tasks on each CPU share the work evenly.
TASKS_PER_CPU = 8
# A task of Ray Data costs the driver r = 9 ms. A pass with W seconds of work in T tasks takes r T at the
# driver and W / T beside it: the least at T = sqrt(W / r), which is 900 for the two hours of CPU that scoring
# 10 billion items takes. More CPUs than that wait for the driver, however small the tasks.
MAX_BLOCKS = 1_000
# A plain task costs whoever hands it out a fraction of that. Each process hands out and adds up so many, so
# that no more sums come to the driver, and 100 x 100 tasks are enough for 10,000 CPUs.
FAN_OUT = 100
MAX_TASKS = FAN_OUT * FAN_OUT


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

    blocks = TASKS_PER_CPU * _cpus()
    return dataset_of(parts, blocks).map_batches(each, batch_size=1, batch_format="pyarrow")


def results(parts: list[str], function: Callable[[str], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One small row per part, in the order in which tasks finish."""

    def each(row: dict[str, Any]) -> dict[str, Any]:
        return function(row["part"])

    if parts:
        yield from dataset_of(parts, TASKS_PER_CPU * _cpus()).map(each).iter_rows()


def total(parts: list[str], function: Callable[[str], T], add: Callable[[list[T]], T]) -> T:
    """What ``function`` makes of each part, added up; ``add([])`` where there are no parts."""
    return add(sums(parts, function, add))


def added(found: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The sum of integer arrays of one shape, one at least."""
    return np.sum(found, axis=0, dtype=np.int64)


def sums(parts: list[str], function: Callable[[str], T], add: Callable[[list[T]], T]) -> list[T]:
    """Sums of what ``function`` makes of each part: at most ``FAN_OUT``, in no order.

    Tasks add up what their parts give. Where tasks are many, other tasks on all nodes hand them out and add
    up their sums, so that the driver has neither to do. ``add`` must give the same for any order and any
    brackets: what the sums come to does not depend on the tasks then.
    """
    if not parts:
        return []
    cpus = _cpus()
    tasks = min(len(parts), TASKS_PER_CPU * cpus, MAX_TASKS)
    work = ray.put((function, add))
    if tasks <= FAN_OUT:
        return _hand_out(_leaf, work, _split(parts, tasks), at_once=cpus)
    pieces = _split(parts, -(-tasks // FAN_OUT))
    return _hand_out(_branch, work, pieces, num_cpus=0, scheduling_strategy="SPREAD")


def _leaf(work: tuple[Callable[[str], T], Callable[[list[T]], T]], parts: list[str]) -> T:
    function, add = work
    return add([function(part) for part in parts])


def _branch(work: tuple[Callable[[str], T], Callable[[list[T]], T]], parts: list[str]) -> T:
    return work[1](_hand_out(_leaf, ray.put(work), _split(parts, min(len(parts), FAN_OUT))))


def _hand_out(
    task: Callable[[Any, list[str]], T],
    work: Any,
    pieces: list[list[str]],
    at_once: int = FAN_OUT,
    num_cpus: int = 1,
    scheduling_strategy: Literal["DEFAULT", "SPREAD"] = "DEFAULT",
) -> list[T]:
    """What a task makes of each piece. at_once: so many are asked for at a time.

    Raises the ZpdError of a task as it is; the others are cancelled then.
    """
    # As Ray Data's tasks: begun again, on another node, where a node dies.
    remote = ray.remote(num_cpus=num_cpus, scheduling_strategy=scheduling_strategy, max_retries=-1)(task)
    waiting, under_way, found = iter(pieces), list[Any](), list[T]()
    try:
        while True:
            under_way += [remote.remote(work, piece) for piece in islice(waiting, at_once - len(under_way))]
            if not under_way:
                return found
            done, under_way = ray.wait(under_way)
            found += ray.get(done)
    except RayTaskError as error:
        raise user_error(error) or error from None
    finally:
        for left in under_way:
            ray.cancel(left)


def _split(parts: list[str], pieces: int) -> list[list[str]]:
    """The parts in order, in so many pieces of nearly one size."""
    edges = np.linspace(0, len(parts), pieces + 1).astype(int).tolist()
    return [parts[start:end] for start, end in pairwise(edges)]


def _cpus() -> int:
    """For tasks: all there are; of a Ray of our own (``session``) as many as the machine has cores."""
    limit = ray.data.DataContext.get_current().execution_options.resource_limits.cpu
    have = ray.cluster_resources().get("CPU", 1)
    return max(1, int(have if limit is None else min(have, limit)))
