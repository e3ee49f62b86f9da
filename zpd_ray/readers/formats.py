"""Rows of any file, in batches, in constant memory. A bad row is told and reading goes on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from zpd_ray.errors import ZpdError
from zpd_ray.readers.csv_rows import csv_rows
from zpd_ray.readers.json_rows import json_rows
from zpd_ray.readers.rows import RawRow
from zpd_ray.readers.sources import SourceFile
from zpd_ray.readers.tables import table_rows


def read(file: SourceFile, rows_per_batch: int = 5000) -> Iterator[list[RawRow]]:
    """Rows of a file in file order, at most ``rows_per_batch`` at a time.

    Raises ZpdError when the file is gone, unreadable, or a corrupt Parquet or Arrow file. A compressed text
    file that ends early gives every whole row before the damage and then one bad row that says so.
    """
    rows = _rows(file, rows_per_batch)
    while batch := list(islice(rows, rows_per_batch)):
        yield batch


def _rows(file: SourceFile, rows_per_batch: int) -> Iterator[RawRow]:
    if file.format in ("parquet", "arrow"):
        return table_rows(file, rows_per_batch)
    if file.format == "csv":
        return csv_rows(file)
    if file.format == "jsonl":
        return json_rows(file)
    raise ZpdError(f"{file.path} has the format {file.format!r}; expected jsonl, parquet, csv or arrow")
