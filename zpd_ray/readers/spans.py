"""Large files in spans that are read apart: lines of JSON by bytes, Parquet by row groups.

Compressed text, CSV (a quoted field may hold newlines) and Arrow files have one span.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq

from zpd_ray.readers import streams
from zpd_ray.readers.json_rows import is_array
from zpd_ray.readers.sources import SourceFile

SPAN_BYTES = 1 << 27  # the least that is worth a task
MOST_SPANS = 1024  # that one file makes; of many files only those far above the others are split


@dataclass(frozen=True)
class Span:
    """A share of a file: the lines that begin in [start, stop), bytes, or the row groups [start, stop), None
    being the end. first: number of its first line or row."""

    start: int = 0
    stop: int | None = None
    first: int = 0


def spans_of(file: SourceFile, total: int) -> list[Span]:
    """Spans of a file; total: bytes of all files of the source. Those of lines want to be ``numbered``."""
    least = max(SPAN_BYTES, total // MOST_SPANS)
    if file.size <= least:
        return [Span()]
    if file.format == "parquet":
        return _of_groups(file, least)
    if file.format == "jsonl" and file.compression is None and not is_array(file):
        starts = range(0, file.size, least)
        return [Span(start, start + least) for start in starts[:-1]] + [Span(starts[-1])]
    return [Span()]


def _of_groups(file: SourceFile, least: int) -> list[Span]:
    try:
        with file.filesystem().open_input_file(file.inner) as stream:
            metadata = pq.read_metadata(stream)
    except (pa.ArrowException, OSError):
        return [Span()]  # whoever reads it says what is wrong
    spans, start, first, rows, size = [], 0, 0, 0, 0
    for group in range(metadata.num_row_groups):
        rows += metadata.row_group(group).num_rows
        size += metadata.row_group(group).total_byte_size
        if size >= least:
            spans.append(Span(start, group + 1, first))
            start, first, size = group + 1, rows, 0
    return [*spans, Span(start, None, first)] if start < metadata.num_row_groups else spans


def newlines_in(file: SourceFile, span: Span) -> int:
    """Newlines from the byte before the span's start to the one before its stop, which is not counted."""
    start = max(0, span.start - 1)
    left = None if span.stop is None else span.stop - 1 - start
    count = 0
    for chunk in streams.chunks(file, start):
        part = chunk if left is None else chunk[:left]
        count += part.count(b"\n")
        if left is not None and (left := left - len(part)) == 0:
            break
    return count


def numbered(spans: list[Span], newlines: list[int]) -> list[Span]:
    """Spans of lines with the number of their first line. newlines: ``newlines_in`` of each.

    A span's first line comes after the first newline at or after the byte before its start.
    """
    before, found = 0, []
    for span, count in zip(spans, newlines, strict=True):
        found.append(replace(span, first=before + 1 if span.start else 0))
        before += count
    return found
