"""From a measured pool to a worker's first batch: select, training order, texts that are read when due.

    python benchmarks/first_batch.py --items 1e6 [--parts-of 100000] [--fraction 0.05] [--text 512]
        [--rows 100000] [--dir DIR]

The pool is written as ingest leaves it, and measured by the simulated engine. Read: bytes that all processes
of the run have taken from files meanwhile, what they import included. First batch: seconds until a worker
that is up has its first 32 rows; then as many rows as --rows says, by a loop that does nothing with them.
Memory: driver = its largest resident set; other = the largest other process, without what it shares.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
from scale import Sampler, config_of, write_pool

from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.layout import FIT, MEASURE, SELECT, StageFiles

BATCH = 32


def bytes_read() -> int:
    """By this process and its children, so far."""
    me, total = psutil.Process(), 0
    for process in [me, *me.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            total += process.io_counters().read_chars
    return total


def rows_of(batches: Iterator[pa.Table], most: int) -> int:
    """Take so many rows, or all that are left."""
    taken = 0
    for batch in batches:
        taken += batch.num_rows
        if taken >= most:
            break
    return taken


def timed(sampler: Sampler, name: str, items: int, work: Any) -> float:
    """Do it, and print what it took."""
    before = bytes_read()
    took = sampler.step(work)
    read = (bytes_read() - before) / 1e6
    cells = [name, f"{items:,}", f"{took['seconds']:.1f}", f"{took['cpu']:.1f}", f"{read:,.0f}"]
    print(f"| {' | '.join([*cells, str(took['driver']), took['other']])} |", flush=True)
    return float(took["seconds"])


def run_here(items: int, options: argparse.Namespace, directory: Path) -> None:
    """All steps, each a row of the table; then what the worker was given a second."""
    from zpd_ray.pipeline.cluster.session import Session
    from zpd_ray.pipeline.run import take
    from zpd_ray.pipeline.train.shards import ordered_shards, with_texts

    config = config_of(directory, options.parts_of)
    budget = config.select.budget.model_copy(update={"fraction": options.fraction})
    select = config.select.model_copy(update={"budget": budget})
    run = Run(config.model_copy(update={"select": select}), Store(config.output))
    sampler, found = Sampler(), dict[str, Any]()
    sampler.start()

    def order() -> None:
        (found["shard"],) = ordered_shards(run, StageFiles(0).selected, 0, 1, [int(options.fraction * items)])

    def first() -> None:
        rows = with_texts(run, 0, found["shard"])
        found["batches"] = iter(
            rows.iter_batches(batch_size=BATCH, batch_format="pyarrow", prefetch_batches=1)
        )
        next(found["batches"])

    def rest() -> None:
        found["rows"] = rows_of(found["batches"], options.rows)

    write = partial(write_pool, run.config, run.store, items, options.parts_of, text=options.text)
    with Session(run) as session:
        timed(sampler, "pool written", items, write)
        for step in (MEASURE, FIT, SELECT):
            timed(sampler, step.name, items, partial(take, session, step, 0))
        timed(sampler, "ordered_shards", items, order)
        timed(sampler, "first batch", items, first)
        seconds = timed(sampler, "rows after it", items, rest)
        print(f"{found['rows']:,} rows, {found['rows'] / seconds:,.0f} a second")


def main() -> None:
    """A table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=float, default=1e6)
    parser.add_argument("--parts-of", type=int, default=100_000)
    parser.add_argument("--fraction", type=float, default=0.05)
    parser.add_argument("--text", type=int, default=512, help="bytes of a response, a multiple of 16")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dir", type=Path)
    options = parser.parse_args()
    if options.dir:
        options.dir.mkdir(parents=True, exist_ok=True)
    print("| step | items | s | CPU s | read MB | driver MiB | other MiB |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        run_here(int(options.items), options, Path(directory))


if __name__ == "__main__":
    main()
