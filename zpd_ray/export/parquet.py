"""Parquet files, for whatever reads tables; ``datasets.load_dataset`` takes the directory."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from zpd_ray.export.base import Rows
from zpd_ray.export.files import PLAIN, TOOLS, those, write_parquet

LENGTHS = ("prompt_tokens", "response_tokens")


class Parquet:
    """The columns of the item, and what is carried."""

    needs = ()
    hint = 'datasets.load_dataset("{into}", split="train")'

    def write(self, rows: Rows, directory: Path) -> None:
        """A file per file of the selection."""

        def convert(table: pa.Table) -> pa.Table:
            return those(table, [*PLAIN, TOOLS, *LENGTHS, *rows.carried])

        write_parquet(rows, directory, convert)
