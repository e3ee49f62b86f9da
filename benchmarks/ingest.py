"""Rows a second of reading a pool: in one process, through Ray on this machine, and by a loop of one's own.

    python benchmarks/ingest.py [--rows 2e5] [--ray-rows 1e6] [--files 8] [--dir DIR] [--gsm8k train.jsonl.gz]

Short rows ("How much is 17 plus 4?"), and, with --gsm8k, its rows over and over with other numbers, a fifth
as many; each as lines of JSON, the same compressed, and Parquet. One process: files are read, checked, hashed
and staged, which is ingest's first pass. Ray: both passes, from sources to parts, after a first ingest of few
rows that starts its workers; nothing that Ray needs to start is counted, but its processes' CPU is. The loop:
json.loads or to_pylist, checks that texts are there, sha256, and a set of what was seen; it writes nothing.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from scale import Sampler

from zpd_ray.config import Config
from zpd_ray.config_file import validate
from zpd_ray.pipeline.ingest.reading import stage_file, tasks_of
from zpd_ray.pipeline.ingest.source import Source
from zpd_ray.readers.sources import expand
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.layout import POOL

FORMATS = ("jsonl", "jsonl.gz", "parquet")
Row = dict[str, str]


def short_rows(count: int) -> Iterator[Row]:
    """Sums, no two alike."""
    for i in range(count):
        yield {
            "prompt": f"How much is {i} plus {i % 997}?",
            "response": f"It is {i + i % 997}.",
            "answer": str(i),
        }


def long_rows(path: str, count: int) -> Iterator[Row]:
    """Problems of GSM8K, with other numbers each time round."""
    rows = [json.loads(line) for line in gzip.decompress(Path(path).read_bytes()).splitlines()]
    for i, row in enumerate(islice(cycle(rows), count)):
        yield {key: _moved(text, i // len(rows)) for key, text in row.items()}


def _moved(text: str, by: int) -> str:
    """The text with so much more in each number."""

    def larger(found: re.Match[str]) -> str:
        return str(int(found[0]) + by)

    return re.sub(r"\d+", larger, text)


def write(rows: Iterator[Row], each: int, directory: Path, ending: str) -> None:
    """The rows, so many in each file."""
    directory.mkdir()
    number = 0
    while some := list(islice(rows, each)):
        path = directory / f"{number:03d}.{ending}"
        number += 1
        if ending == "parquet":
            pq.write_table(pa.Table.from_pylist(some), path)
            continue
        with gzip.open(path, "wt", 6) if ending.endswith("gz") else open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in some)


def by_hand(directory: Path) -> int:
    """What one would write oneself."""
    seen, good = set(), 0
    for path in sorted(directory.iterdir()):
        for row in _rows_of(path):
            names = ("question", "answer") if "question" in row else ("prompt", "response")
            texts = [row.get(name) for name in names]
            if not all(isinstance(text, str) and text.strip() for text in texts):
                continue
            digest = hashlib.sha256(json.dumps(row).encode()).hexdigest()
            if digest not in seen:
                seen.add(digest)
                good += 1
    return good


def _rows_of(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".parquet":
        for batch in pq.ParquetFile(path).iter_batches(10_000):
            yield from batch.to_pylist()
        return
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        yield from map(json.loads, file)


def config_of(directory: Path, source: Path, grader: str) -> Config:
    """A run that could ingest these files."""
    return validate(
        {
            "output": str(directory),
            "pool": {"path": str(source), "items_per_part": 100_000},
            "model": {"path": "none"},
            "engine": {"name": "simulated"},
            "measure": {"grader": grader},
            "select": {"budget": {"fraction": 0.05}},
            "train": {"method": "none"},
        }
    )


def first_pass(run: Run) -> int:
    """Files to staged rows, as the tasks of ingest do it."""
    source = Source(run, run.config.pool, POOL)
    done = [row for task in tasks_of(expand(run.config.pool.path)) for row in stage_file(source, task)]
    return sum(row["items"] for row in done)


def timed(work: Callable[[], int]) -> str:
    """Rows a second, and CPU a row."""
    wall, cpu = time.perf_counter(), time.process_time()
    rows = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return f"{rows / wall:>10,.0f} | {cpu / rows * 1e6:6.2f}"


def through_ray(directory: Path, sources: dict[str, Path], grader: str) -> dict[str, dict[str, Any]]:
    """What ingest takes by format; the workers have started before."""
    from zpd_ray.pipeline.cluster.session import Session
    from zpd_ray.pipeline.ingest.ingest import ingest

    warm = directory / "warm"
    write(short_rows(30_000), 10_000, warm, "jsonl")
    found = {}
    sampler = Sampler()
    sampler.start()
    with Session(
        Run(config_of(directory / "out", warm, "greedy_match"), Store(str(directory / "out")))
    ) as session:
        ingest(session.run)
        for name, source in sources.items():
            config = config_of(directory / "out", source, grader)
            found[name] = sampler.step(partial(ingest, Run(config, session.run.store)))
    return found


def main() -> None:
    """A table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=float, default=2e5)
    parser.add_argument("--ray-rows", type=float, default=1e6)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--formats", nargs="+", default=FORMATS)
    parser.add_argument("--gsm8k")
    parser.add_argument("--dir")
    options = parser.parse_args()
    kinds = {"short": (short_rows, 1, "greedy_match")}
    if options.gsm8k:
        kinds["GSM8K"] = (partial(long_rows, options.gsm8k), 5, "numeric")
    print("| rows | format | by | rows / s | CPU us / row |\n|---|---|---|---|---|")
    for kind, (rows, fewer, grader) in kinds.items():
        with tempfile.TemporaryDirectory(dir=options.dir) as temporary:
            base, large = Path(temporary), {}
            for ending in options.formats:
                count = int(options.rows) // fewer
                write(rows(count), count, base / ending, ending)
                run = Run(
                    config_of(base / f"{ending}.out", base / ending, grader),
                    Store(str(base / f"{ending}.out")),
                )
                print(f"| {kind} | {ending} | loop | {timed(partial(by_hand, base / ending))} |", flush=True)
                print(f"| {kind} | {ending} | one process | {timed(partial(first_pass, run))} |", flush=True)
                if options.ray_rows:
                    count = int(options.ray_rows) // fewer
                    large[ending] = base / f"{ending}.large"
                    write(rows(count), -(-count // options.files), large[ending], ending)
            for ending, took in through_ray(base, large, grader).items() if large else ():
                count = int(options.ray_rows) // fewer
                cells = f"{count / took['seconds']:>10,.0f} | {took['cpu'] / count * 1e6:6.2f}"
                print(f"| {kind} | {ending} | Ray | {cells} |", flush=True)


if __name__ == "__main__":
    main()
