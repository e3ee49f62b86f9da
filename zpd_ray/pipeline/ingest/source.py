"""Where the items of one source go: the pool or the evaluation set, and what is set aside of it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

import pyarrow as pa

from zpd_ray.config import SourceConfig
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import POOL


@dataclass(frozen=True)
class Source:
    """One source of a run. section: of the config; into: directory of its parts in the run directory."""

    run: Run
    section: SourceConfig
    into: str

    @property
    def name(self) -> str:
        """For people."""
        return "pool" if self.into == POOL else "evaluation set"

    @property
    def key(self) -> str:
        """Section of the config."""
        return "pool" if self.into == POOL else "evaluation"

    @property
    def staging(self) -> str:
        """Directory of the rows between the two passes."""
        return f"{self.into}.staging"

    def stage(self, name: str, items: pa.Table) -> str:
        """Write rows for the second pass, not as Parquet, which takes longer to write and to read; the name
        of their file."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, items.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as out:
            out.write_table(items)
        self.run.store.write_bytes(f"{self.staging}/{name}.arrows", sink.getvalue())
        return f"{name}.arrows"

    def staged(self, name: str) -> pa.Table:
        """Rows that were staged, by the name of their file."""
        with pa.ipc.open_stream(self.run.store.read_bytes(f"{self.staging}/{name}")) as rows:
            return rows.read_all()

    def quarantine(self, name: str, bad: pa.Table) -> str:
        """Write bad rows, if any; their counts by reason as JSON."""
        if bad.num_rows:
            self.run.store.write_table(f"quarantine/{self.into}/{name}", bad)
        return json.dumps(Counter(bad["reason"].to_pylist()))
