"""Peak memory of the driver, by size of the pool: ingest, measure (simulated), fit and select.

Each size runs in a process of its own, on a Ray of its own.

    python benchmarks/memory.py --items 10000 100000 1000000
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zpd_ray.config_file import validate

ROWS_PER_FILE = 100_000


def make_pool(items: int, directory: Path) -> None:
    """Parquet files of short question and answer rows."""
    directory.mkdir()
    for start in range(0, items, ROWS_PER_FILE):
        number = np.arange(start, min(items, start + ROWS_PER_FILE)).astype(str).tolist()
        columns = {
            "prompt": [
                f"How much is the {i}th number times two, and why would one want to know?" for i in number
            ],
            "response": [f"It is twice {i}; nobody knows why." for i in number],
        }
        pq.write_table(pa.table(columns), directory / f"{start:09d}.parquet")


def config_values(pool: Path, output: Path) -> dict[str, Any]:
    """One stage with the simulated engine and no training."""
    return {
        "output": str(output),
        "stages": 1,
        "pool": {"path": str(pool), "items_per_part": 20_000},
        "model": {"path": "none"},
        "engine": {"name": "simulated"},
        "select": {"budget": {"fraction": 0.05}},
        "train": {"method": "none"},
    }


def run_one(pool: Path) -> None:
    """Run and print a line of JSON: what the driver took at most, in MiB, and seconds by step."""
    from zpd_ray.pipeline.commands import perform
    from zpd_ray.pipeline.store import Store

    config = validate(config_values(pool, pool.parent / "out"))
    perform("run", config)
    seconds = {event["step"]: round(event["seconds"], 1) for event in Store(config.output).events()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"peak": peak // 1024, "seconds": seconds}))


def main() -> None:
    """One subprocess per size; a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run_one(options.one)
        return
    print(
        "| items | driver's peak, MiB | ingest s | measure s | fit s | select s |\n|---|---|---|---|---|---|"
    )
    for items in options.items:
        with tempfile.TemporaryDirectory() as directory:
            pool = Path(directory) / "pool"
            make_pool(items, pool)
            done = subprocess.run(
                [sys.executable, __file__, "--one", pool], stdout=subprocess.PIPE, check=True
            )
        found = json.loads(done.stdout.splitlines()[-1])
        steps = " | ".join(str(found["seconds"][step]) for step in ("ingest", "measure", "fit", "select"))
        print(f"| {items:,} | {found['peak']} | {steps} |", flush=True)


if __name__ == "__main__":
    main()
