"""Rows of Parquet and Arrow files."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from zpd_ray.errors import ZpdError
from zpd_ray.readers import rows
from zpd_ray.readers.rows import RawRow, problem
from zpd_ray.readers.sources import SourceFile

_MAGIC = b"ARROW1"  # an IPC file starts with it, an IPC stream does not


def table_rows(file: SourceFile, rows_per_batch: int) -> Iterator[RawRow]:
    """A dict per row, decoded ``rows_per_batch`` at a time. Raises ZpdError as ``table_batches`` does."""
    for start, batch in table_batches(file, rows_per_batch):
        yield from batch_rows(batch, start)


def table_batches(
    file: SourceFile, rows_per_batch: int, groups: slice = slice(None), start: int = 0
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Rows ``rows_per_batch`` at a time, with the number of the first.

    groups: row groups of a Parquet file that are read; start: the number of their first row.

    Raises ZpdError when the file is corrupt, not of its format, or has two columns of one name.
    """
    parquet = file.format == "parquet"
    batches = _parquet_batches(file, rows_per_batch, groups) if parquet else _arrow_batches(file)
    try:
        for batch in batches:
            _unique_names(file, batch.schema)
            for offset in range(0, batch.num_rows, rows_per_batch):
                yield start + offset, batch.slice(offset, rows_per_batch)
            start += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise ZpdError(
            f"{file.path} is no sound {file.format} file: {error} (after {start} rows); "
            "write it again or leave it out"
        ) from error


def _parquet_batches(file: SourceFile, rows_per_batch: int, groups: slice) -> Iterator[pa.RecordBatch]:
    with file.filesystem().open_input_file(file.inner) as handle, pq.ParquetFile(handle) as parquet:
        chosen = list(range(parquet.num_row_groups))[groups]
        yield from parquet.iter_batches(batch_size=rows_per_batch, row_groups=chosen)


def _arrow_batches(file: SourceFile) -> Iterator[pa.RecordBatch]:
    with file.filesystem().open_input_file(file.inner) as handle:
        start = handle.read(len(_MAGIC))
        handle.seek(0)
        if start == _MAGIC:
            with pa.ipc.open_file(handle) as reader:
                for index in range(reader.num_record_batches):
                    yield reader.get_batch(index)
        else:
            with pa.ipc.open_stream(handle) as reader:
                yield from reader


def _unique_names(file: SourceFile, schema: pa.Schema) -> None:
    repeated = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if repeated:
        raise ZpdError(f"{file.path} has two columns named {repeated[0]!r}; rename one of them")


def batch_rows(batch: pa.RecordBatch, start: int) -> list[RawRow]:
    """A dict per row, or what is wrong with it; ``start`` is the number of the first."""
    try:
        return [RawRow(row, value) for row, value in enumerate(batch.to_pylist(), start)]
    except (ValueError, OverflowError):  # invalid UTF-8, dates out of range: find the rows that hold them
        return [_row(batch, index, start + index) for index in range(batch.num_rows)]


def _row(batch: pa.RecordBatch, index: int, row: int) -> RawRow:
    try:
        return RawRow(row, batch.slice(index, 1).to_pylist()[0])
    except UnicodeDecodeError as error:
        return problem(row, rows.NOT_UTF8, error.object, str(error))
    except (ValueError, OverflowError) as error:
        return problem(row, rows.UNREADABLE_VALUE, "", str(error))
