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

    def quarantine(self, name: str, bad: pa.Table) -> str:
        """Write bad rows, if any; their counts by reason as JSON."""
        if bad.num_rows:
            self.run.store.write_table(f"quarantine/{self.into}/{name}", bad)
        return json.dumps(Counter(bad["reason"].to_pylist()))
