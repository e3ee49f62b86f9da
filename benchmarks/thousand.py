"""A stage of 10 billion items on 1,000 GPUs, simulated: what takes how long, before and after sums in a tree.

    python benchmarks/thousand.py [--items 1e10] [--items-per-part 1e5] [--cpus 10000] [--gpus 1000]
        [--milliseconds 2] [--prefixes 1]

Nothing of it was run at that size. Tasks are handed out one after the other at the rate that was measured,
wait for a CPU, take the time that was measured for their items (by a factor drawn from a seed: some are slow)
and their turn at the object store; sums then travel to whoever adds them up. The rates are below, with where
they come from. milliseconds: of a GPU, for measuring an item with a real model.
"""

from __future__ import annotations

import argparse
import heapq
import math
from dataclasses import dataclass

import numpy as np

# Seconds at whoever hands out a task, for it and its result (2,000 empty tasks, 2 busy cores, 2026-12-01).
RAY_DATA, PLAIN, PART = 0.0065, 0.0006, 0.010  # PART: a part to a scorer and back (docs/scaling.md)
LOST = 0.005  # seconds of a CPU that each task takes whatever it does
# S3 by its documentation: requests of each prefix in a second. Reads; writes are 3,500.
REQUESTS = 5_500.0
LINK = 1e9  # bytes in a second into one process
ADD = 0.001  # seconds to add one sum
SLOW = 0.3  # sd of the logarithm of how long tasks take


@dataclass(frozen=True)
class Pass:
    """Over all parts. cpu: nanoseconds an item; requests: a part's; sent: bytes of the sum of a task.

    files: into which rows are sorted; shuffled: bytes of an item on the way there.
    """

    name: str
    cpu: float
    requests: float
    sent: float = 0.0
    files: int = 0
    shuffled: float = 0.0


@dataclass(frozen=True)
class Hands:
    """Who hands out tasks. rate: seconds a task; most: tasks of a pass; fan_out: of each who hands out."""

    rate: float
    most: int
    fan_out: int | None = None


@dataclass(frozen=True)
class Cluster:
    """What there is."""

    items: float
    parts: int
    cpus: int
    prefixes: int


def handed_out(hands: Hands, tasks: int) -> np.ndarray:
    """When each task is handed out, by one process or by several which were handed out themselves."""
    if hands.fan_out is None:
        return hands.rate * np.arange(1, tasks + 1)
    branch, place = np.divmod(np.arange(tasks), hands.fan_out)
    return hands.rate * (branch + 1 + place + 1)


def seconds(each: Pass, hands: Hands, cluster: Cluster) -> tuple[float, str]:
    """How long a pass takes, and what it waits for most."""
    tasks = min(cluster.parts, 8 * cluster.cpus, hands.most)
    handed = handed_out(hands, tasks)
    slow = np.random.default_rng(0).lognormal(-(SLOW**2) / 2, SLOW, tasks)
    work = LOST + slow * each.cpu * 1e-9 * cluster.items / tasks
    asked = each.requests * cluster.parts / tasks / (REQUESTS * cluster.prefixes)
    free = [0.0] * cluster.cpus
    ends, store = np.empty(tasks), 0.0
    for at in np.argsort(handed, kind="stable"):
        start = max(handed[at], heapq.heappop(free))
        store = max(store, start) + asked
        ends[at] = max(start + work[at], store)
        heapq.heappush(free, ends[at])
    ends += each.shuffled * cluster.items / tasks / LINK
    adders = 1 if hands.fan_out is None else math.ceil(tasks / hands.fan_out)
    adding = (tasks / adders + (adders if adders > 1 else 0)) * (ADD * (each.sent > 0) + each.sent / LINK)
    waits = {"driver": hands.rate * (adders if hands.fan_out else tasks), "sums": adding}
    waits |= {"CPUs": work.sum() / cluster.cpus, "store": asked * tasks}
    return float(ends.max()) + adding, max(waits, key=lambda name: waits[name])


RAY_TASKS = Hands(RAY_DATA, 10_000)
BOUNDED = Hands(RAY_DATA, 1_000)
TREE = Hands(PLAIN, 10_000, 100)

# cpu: ``process_time`` of a part of 100,000 items (docs/scaling.md). requests: those of reading were counted
# at pyarrow's file system, a write is taken for one. A place is 110 bytes.
BEFORE = [
    (Pass("fit: counts", 119, 6, 50e3), RAY_TASKS),
    (Pass("select: score, first histogram", 377, 8, 10e3), RAY_TASKS),
    (Pass("select: second histogram", 9, 1, 1.5e6), RAY_TASKS),
    (Pass("select: rows near the threshold", 46, 6, 1e3), RAY_TASKS),
    (Pass("select: where files begin", 9, 1, 1.5e6), RAY_TASKS),
    (Pass("select: write what was chosen", 293, 9, 0, 10_000, 50), RAY_TASKS),
    (Pass("select: counts beyond", 9, 1, 100), RAY_TASKS),
]
AFTER = [
    (Pass("fit: counts", 60, 4, 50e3), TREE),
    (Pass("select: score, first histogram", 315, 6, 10e3), TREE),
    (Pass("select: second histogram", 9, 1, 1.5e6), TREE),
    (Pass("select: rows near the threshold", 9, 1, 1e3), TREE),
    (Pass("select: where files begin", 9, 1, 1.5e6), TREE),
    (Pass("select: write places", 30, 3, 0, 10_000, 5.5), BOUNDED),
]


def measuring(cluster: Cluster, gpus: int, milliseconds: float) -> float:
    """Seconds: a part is handed to a GPU, which takes the time of its items, and back."""
    each = milliseconds * 1e-3 * cluster.items / cluster.parts
    free = [0.0] * gpus
    for at in range(cluster.parts):
        heapq.heappush(free, max(heapq.heappop(free), PART * (at + 1)) + each)
    return max(free)


def told(passes: list[tuple[Pass, Hands]], cluster: Cluster) -> None:
    """A table."""
    print("| pass | tasks | s | waits most for | requests | objects |")
    print("|---|---|---|---|---|---|")
    total = 0.0
    for each, hands in passes:
        took, why = seconds(each, hands, cluster)
        tasks = min(cluster.parts, 8 * cluster.cpus, hands.most)
        requests, objects = each.requests * cluster.parts, tasks * max(1, each.files)
        total += took
        print(f"| {each.name} | {tasks:,} | {took:,.0f} | {why} | {requests:,.0f} | {objects:,} |")
    print(f"| **all** | | {total:,.0f} | | | |\n", flush=True)


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=float, default=1e10)
    parser.add_argument("--items-per-part", type=float, default=1e5)
    parser.add_argument("--cpus", type=int, default=10_000)
    parser.add_argument("--gpus", type=int, default=1_000)
    parser.add_argument("--milliseconds", type=float, default=2.0)
    parser.add_argument("--prefixes", type=int, default=1, help="directories that a directory is split into")
    options = parser.parse_args()
    parts = math.ceil(options.items / options.items_per_part)
    cluster = Cluster(options.items, parts, options.cpus, options.prefixes)
    took = measuring(cluster, options.gpus, options.milliseconds)
    print(f"measure: {took:,.0f} s, of which handing out parts {PART * parts:,.0f} s beside it\n")
    for name, passes in (("before", BEFORE), ("after", AFTER)):
        print(f"{name}:\n")
        told(passes, cluster)


if __name__ == "__main__":
    main()
