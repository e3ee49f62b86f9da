"""Work over the parts of the pool, one part at a time: sums by tasks of Ray's own, rows by those of Ray Data.

A part is a parquet file with a fixed name and content, so what is computed from it does not depend on how
many workers there are, nor on the order in which they finish; and a part whose result is on disk is done.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from itertools import chain, islice, pairwise
from typing import Any, Literal, TypeVar, cast

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from ray.exceptions import RayTaskError

from zpd_ray.pipeline.cluster.failures import user_error

T = TypeVar("T")
N = TypeVar("N", int, NDArray[np.int64])

# A task takes several parts where these are many; so many tasks on each CPU share the work evenly.
TASKS_PER_CPU = 8
# A task of Ray Data costs the driver r = 6.5 ms. A pass with W seconds of work in T tasks takes r T at the
# driver and W / T beside it: the least at T = sqrt(W / r), some 700 for the 3,000 s of CPU that 10 billion
# items take in one. With more tasks the CPUs wait for the driver, however many they are.
MAX_BLOCKS = 1_000
# A plain task costs whoever hands it out 0.6 ms. Each process hands out and adds up so many, so that no more
# sums come to the driver, and 100 x 100 tasks are enough for 10,000 CPUs.
FAN_OUT = 100
MAX_TASKS = FAN_OUT * FAN_OUT
RETRIES = 10  # of a task whose process or node dies; a part that ends every process ends the run
HELD = 16  # sums that a process holds before it adds them up


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


def results(parts: list[str], function: Callable[[str], T]) -> list[T]:
    """What ``function`` makes of each part, something small, in no order."""
    return total(parts, lambda part: [function(part)], lambda found: list(chain(*found)))


def total(parts: list[str], function: Callable[[str], T], add: Callable[[list[T]], T]) -> T:
    """What ``function`` makes of each part, added up; ``add([])`` where there are no parts.

    Tasks add up what their parts give. Where tasks are many, other tasks on all nodes hand them out and add
    up their sums, so that the driver gets few and hands out few. ``add`` must give the same for any order and
    any brackets: the sum does not depend on the tasks then.
    """
    if not parts:
        return add([])
    cpus, work = _cpus(), ray.put((function, add))
    tasks = min(len(parts), TASKS_PER_CPU * cpus, MAX_TASKS)
    if tasks <= FAN_OUT:
        found = _hand_out(_leaf, work, _split(parts, tasks), at_once=cpus)
    else:
        pieces = _split(parts, -(-tasks // FAN_OUT))
        found = _hand_out(_branch, work, pieces, num_cpus=0, scheduling_strategy="SPREAD")
    with closing(found):
        return _added_as_they_come(found, add)


def added(found: list[N]) -> N:
    """The sum of whole numbers, or of integer arrays of one shape; 0 of nothing."""
    return cast("N", sum(found))


def _leaf(work: tuple[Callable[[str], T], Callable[[list[T]], T]], parts: list[str]) -> T:
    function, add = work
    return _added_as_they_come(map(function, parts), add)


def _branch(work: tuple[Callable[[str], T], Callable[[list[T]], T]], parts: list[str]) -> T:
    with closing(_hand_out(_leaf, ray.put(work), _split(parts, min(len(parts), FAN_OUT)))) as found:
        return _added_as_they_come(found, work[1])


def _added_as_they_come(found: Iterable[T], add: Callable[[list[T]], T]) -> T:
    held = list[T]()
    for each in found:
        held.append(each)
        if len(held) == HELD:
            held = [add(held)]
    return add(held)


def _hand_out(
    task: Callable[[Any, list[str]], T],
    work: Any,
    pieces: list[list[str]],
    at_once: int = FAN_OUT,
    num_cpus: int = 1,
    scheduling_strategy: Literal["DEFAULT", "SPREAD"] = "DEFAULT",
) -> Generator[T, None, None]:
    """What a task makes of each piece, in the order of finishing. at_once: so many are asked for at a time.

    Raises the ZpdError of a task as it is; the others are cancelled then.
    """
    remote = ray.remote(num_cpus=num_cpus, scheduling_strategy=scheduling_strategy, max_retries=RETRIES)(task)
    waiting, under_way = iter(pieces), list[Any]()
    try:
        while True:
            under_way += [remote.remote(work, piece) for piece in islice(waiting, at_once - len(under_way))]
            if not under_way:
                return
            (done,), under_way = ray.wait(under_way)
            yield ray.get(done)
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
