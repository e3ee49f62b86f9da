"""Rates and memory by size of the pool: ingest, measure (simulated), fit, select, each size on its own Ray.

    python benchmarks/scale.py --items 1e6 1e7 1e8 [--parts-of 100000] [--dir DIR] [--ingest-up-to 1e7]
        [--scope probe]

Pools beyond --ingest-up-to are not ingested: their parts are written as ingest would leave them. The last
row of a size is its peer: the same scores for the same items by numpy and pyarrow in one process, which must
choose the same items. With --scope probe or zone there is no peer, and a second stage follows, which measures
only what that scope does and selects from all items at the ability of then. Memory: driver = its largest
resident set; other = the largest other process, without the memory that it shares. CPU counts all processes
of the run. Files are deleted afterwards.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zpd_ray import schema
from zpd_ray.config import Config
from zpd_ray.config_file import validate
from zpd_ray.hashing import mix
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.layout import POOL
from zpd_ray.rundir.row_groups import GROUP_ROWS

HEX = np.frombuffer("".join(f"{i:02x}" for i in range(256)).encode(), dtype="<u2")
RESPONSE = "It is that many."
SAMPLE_SECONDS = 0.5
PEER = "peer"


class Sampler(Thread):
    """Memory and CPU of this process's children, by step."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.done, self.cpu, self.largest, self.whose = Event(), dict[int, float](), 0, ""

    def run(self) -> None:
        """Until told."""
        while not self.done.wait(SAMPLE_SECONDS):
            self.look()

    def look(self) -> None:
        """Once at every process."""
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                times, memory = process.cpu_times(), process.memory_info()
                self.cpu[process.pid] = times.user + times.system
                own = memory.rss - memory.shared
                if own > self.largest:
                    self.largest, self.whose = own, process.name()

    def step(self, work: Any) -> dict[str, Any]:
        """Do ``work``; what it took."""
        self.look()
        before, self.largest = sum(self.cpu.values()) + time.process_time(), 0
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        self.look()
        return {
            "seconds": seconds,
            "cpu": sum(self.cpu.values()) + time.process_time() - before,
            "driver": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "other": f"{self.largest >> 20} ({self.whose})",
        }


def rows_of(start: int, count: int) -> tuple[pa.Array, pa.Array]:
    """Ids of 32 characters, as content hashes are, and short questions."""
    number = np.arange(start, start + count, dtype=np.uint64)
    digits = HEX[np.stack([mix(number), mix(~number)], axis=1).view(np.uint8)]
    offsets = np.arange(count + 1, dtype=np.int32) * 32
    ids = pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(digits.tobytes()))
    return ids, pc.binary_join_element_wise("How much is twice ", pc.cast(pa.array(number), pa.string()), "")


def texts_of(start: int, count: int, size: int) -> pa.Array:
    """Texts of ``size`` bytes, a multiple of 16, that compress by half."""
    number = np.arange(start, start + count, dtype=np.uint64)
    parts = [mix(number ^ np.uint64((1 + part) << 40)) for part in range(size // 16)]
    digits = HEX[np.stack(parts, axis=1).view(np.uint8)]
    offsets = np.arange(count + 1, dtype=np.int32) * size
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(digits.tobytes()))


def write_source(directory: Path, items: int, rows_per_file: int) -> None:
    """Parquet files of prompts and responses, for ingest."""
    directory.mkdir()
    for start in range(0, items, rows_per_file):
        ids, prompts = rows_of(start, min(rows_per_file, items - start))
        table = pa.table({"prompt": prompts, "response": pa.array([RESPONSE] * len(ids))})
        pq.write_table(table, directory / f"{start:012d}.parquet")


def write_part(store: Store, per_part: int, items: int, groups: int, text: int, name: str) -> int:
    """One part of the pool as ingest leaves it.

    groups: "g0", "g1", ... in turn, so many (0: no groups). text: bytes of a response, hexadecimal digits; 0:
    all have the same one.
    """
    start = int(name[5:-8]) * per_part
    ids, prompts = rows_of(start, min(per_part, items - start))
    n = len(ids)
    roles = pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), pa.array(["user"])).cast(pa.string())
    message = pa.StructArray.from_arrays([roles, prompts], ["role", "content"])
    columns = {
        "item_id": ids,
        "messages": pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32), message),
        "response": texts_of(start, n, text) if text else pa.array([RESPONSE] * n),
        "answer": pa.array([RESPONSE] * n),
        "source_row": pa.array(np.arange(start, start + n)),
        "prompt_tokens": pa.array(np.ones(n, np.int32)),
        "response_tokens": pa.array(np.full(n, 4, np.int32)),
    }
    if groups:
        names = pa.array([f"g{i}" for i in range(groups)])
        number = np.arange(start, start + n, dtype=np.int32) % groups
        columns["group"] = pa.DictionaryArray.from_arrays(number, names).cast(pa.string())
    arrays = [columns.get(field.name, pa.nulls(n, field.type)) for field in schema.ITEM]
    table = pa.table(arrays, schema=schema.ITEM)
    store.write_table(f"pool/{name}", table, GROUP_ROWS)
    return n


def write_pool(
    config: Config, store: Store, items: int, per_part: int, groups: int = 0, text: int = 0
) -> None:
    """All parts, and pool.json."""
    from zpd_ray.pipeline.cluster import parts
    from zpd_ray.rundir.begin import record

    names = [parts.part_name(index) for index in range(-(-items // per_part))]
    write = partial(write_part, store, per_part, items, groups, text)
    written = parts.total(names, write, parts.added)
    store.write_json(
        "pool.json", {"items": written, "prompt_tokens": written, "response_tokens": 4 * written}
    )
    record(Run(config, store))


def config_of(directory: Path, per_part: int, scope: str = "pool") -> Config:
    """One stage with the simulated engine and no training; two where the scope is not the pool."""
    return validate(
        {
            "output": str(directory / "out"),
            "stages": 1 if scope == "pool" else 2,
            "measure": {"scope": scope},
            "pool": {"path": str(directory / "source"), "items_per_part": per_part},
            "model": {"path": "none"},
            "engine": {"name": "simulated"},
            "cluster": {"actors": 2},
            "select": {"budget": {"fraction": 0.05}},
            "train": {"method": "none"},
        }
    )


def run_one(items: int, per_part: int, directory: Path, ingested: bool, scope: str) -> None:
    """All steps of one size; prints what each took as a line of JSON."""
    from zpd_ray.pipeline.cluster.session import Session
    from zpd_ray.pipeline.run import take
    from zpd_ray.pipeline.steps import ingest_pool
    from zpd_ray.rundir.layout import FIT, MEASURE, SELECT

    config = config_of(directory, per_part, scope)
    run = Run(config, Store(config.output))
    if ingested:
        write_source(directory / "source", items, per_part)
    sampler = Sampler()
    sampler.start()
    with Session(run) as session:
        if ingested:
            work = {"ingest": partial(ingest_pool, session)}
        else:
            work = {"pool written": partial(write_pool, config, run.store, items, per_part)}
        for stage in range(config.stages):
            told = f", scope {scope}" if stage else ""
            steps = (MEASURE, FIT, SELECT)
            work |= {step.name + told: partial(take, session, step, stage) for step in steps}
        for name, step in work.items():
            print(json.dumps({"step": name} | sampler.step(step)), flush=True)


def peer(directory: Path, per_part: int) -> None:
    """Fit and select as a script of one's own would: everything in memory, one sort; checks the selection."""
    from zpd_ray.calibration import Statistics, fit_stage
    from zpd_ray.pipeline.fit.ability import followed_parts, part_statistics
    from zpd_ray.selection.keys import item_hash, sort_key

    config = config_of(directory, per_part)
    store = Store(config.output)

    def work() -> None:
        measured = pq.read_table(store.path("stages/00/measurements/answers"))
        run = Run(config, store)
        names = store.names(POOL)
        followed = names[: followed_parts(run)]
        counts = [part_statistics(run, 0, name, name in followed) for name in names]
        fit = fit_stage(Statistics.merge(counts), config.ability, 0, None)
        nll, right, responses = (
            measured[name].to_numpy().astype(float) for name in ("nll", "successes", "rollouts")
        )
        score = fit.judge(nll, right.astype(int), responses.astype(int), np.zeros(len(nll))).zpd
        key = sort_key(score, item_hash(measured["item_id"], config.seed, 0, "select"))
        best = np.argsort(key, kind="stable")[: int(0.05 * len(key))]
        columns = ["item_id", "group", "prompt_tokens", "response_tokens"]
        chosen = pq.read_table(store.path("pool"), columns=columns).take(best)
        chosen = chosen.append_column("score", pa.array(score[best]))
        pq.write_table(chosen, directory / "peer.parquet", compression="zstd")

    print(json.dumps({"step": PEER} | Sampler().step(work)), flush=True)
    ours = pq.read_table(store.path("stages/00/selected"), columns=["item_id"])["item_id"]
    theirs = pq.read_table(directory / "peer.parquet", columns=["item_id"])["item_id"]
    if ours.to_pylist() != theirs.to_pylist():
        raise SystemExit("the peer chose other items")


def rows_by_step(command: list[str]) -> list[dict[str, Any]]:
    """The lines of JSON that a process prints."""
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def told(items: int, row: dict[str, Any], before: tuple[int, float] | None) -> str:
    """A line of the table. Growth: the exponent of seconds in items since the size before."""
    growth = ""
    if before is not None:
        growth = f"{math.log(row['seconds'] / before[1]) / math.log(items / before[0]):.2f}"
    rate = items / row["seconds"]
    cells = [row["step"], f"{items:,}", f"{row['seconds']:.1f}", f"{rate:,.0f}"]
    cells += [f"{row['cpu'] / items * 1e6:.2f}", str(row["driver"]), row["other"], growth]
    return f"| {' | '.join(cells)} |"


def measure_size(items: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All steps of one size, with fit and select together, and the peer."""
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        common = ["--dir", directory, "--parts-of", str(options.parts_of)]
        common += ["--ingest-up-to", str(options.ingest_up_to), "--scope", options.scope]
        rows = rows_by_step([sys.executable, __file__, "--one", str(items), *common])
        last = rows[2:4]
        both = {key: sum(row[key] for row in last) for key in ("seconds", "cpu")}
        rows.append(last[-1] | both | {"step": "fit + select"})
        if options.scope == "pool" and items <= options.peer_up_to:  # it knows no probes
            rows += rows_by_step([sys.executable, __file__, "--peer", *common])
    return rows


def main() -> None:
    """A table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=float, nargs="+", default=[1e5, 1e6])
    parser.add_argument("--parts-of", type=int, default=100_000)
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--ingest-up-to", type=float, default=1e7)
    parser.add_argument("--peer-up-to", type=float, default=1e7)
    parser.add_argument("--scope", choices=["pool", "probe", "zone"], default="pool")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.dir:
        options.dir.mkdir(parents=True, exist_ok=True)
    if options.one:
        ingested = options.one <= options.ingest_up_to
        run_one(options.one, options.parts_of, options.dir, ingested, options.scope)
        return
    if options.peer:
        peer(options.dir, options.parts_of)
        return
    print("| step | items | s | items / s | CPU us / item | driver MiB | other MiB | growth |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    before: dict[str, tuple[int, float]] = {}
    for items in map(int, options.items):
        for row in measure_size(items, options):
            print(told(items, row, before.get(row["step"])), flush=True)
            before[row["step"]] = (items, row["seconds"])


if __name__ == "__main__":
    main()
