"""Rows of CSV files: a header, then records, whose quoted fields may hold newlines."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator

from zpd_ray.errors import ZpdError
from zpd_ray.readers import rows, streams
from zpd_ray.readers.rows import RawRow, problem
from zpd_ray.readers.sources import SourceFile


class _LineError(Exception):
    """A line that cannot be given to the CSV reader."""

    def __init__(self, line: streams.Line) -> None:
        super().__init__(line.detail)
        self.line = line


class _Lines:
    """Lines as text for ``csv.reader``. Unlike a generator, it goes on after raising."""

    def __init__(self, file: SourceFile) -> None:
        self._lines = streams.lines(file)
        self.last = ""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        if line.problem:
            raise _LineError(line)
        raw = line.raw.removeprefix(codecs.BOM_UTF8) if line.number == 0 else line.raw
        # Stray bytes become surrogates, which the item reader refuses, row by row.
        self.last = raw.decode("utf-8", "surrogateescape") + "\n"
        return self.last


def csv_rows(file: SourceFile) -> Iterator[RawRow]:
    """A dict of strings per record. Raises ZpdError when there is no sound header."""
    csv.field_size_limit(rows.MAX_ROW_BYTES)  # one limit for the whole process; the default is 128 KiB
    lines = _Lines(file)
    reader = csv.reader(lines, strict=True)
    header = _header(file, reader)
    row, line = 0, reader.line_num
    while True:
        try:
            record = next(reader)
        except StopIteration:
            return
        except _LineError as error:
            yield problem(row, error.line.problem or "", error.line.raw, str(error))
        except csv.Error as error:
            reason = rows.TOO_LONG if "field limit" in str(error) else rows.BAD_CSV
            # An unbalanced quote takes the lines after it along: say which, they are lost with it.
            yield problem(row, reason, lines.last, f"{error} (lines {line + 1} to {reader.line_num})")
        else:
            line = reader.line_num
            if not record:  # a blank line is no record
                continue
            yield _record_row(row, record, header)
        row, line = row + 1, reader.line_num


def _header(file: SourceFile, reader: Iterator[list[str]]) -> list[str]:
    try:
        header = next((record for record in reader if record), [])
    except (_LineError, csv.Error) as error:
        raise ZpdError(
            f"{file.path} has no readable header: {error}; expected column names in its first line"
        ) from error
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise ZpdError(f"the header of {file.path} names {repeated[0]!r} twice; rename one of the columns")
    return header


def _record_row(row: int, record: list[str], header: list[str]) -> RawRow:
    if len(record) != len(header):
        detail = f"got {len(record)} fields, expected {len(header)} as in the header"
        return problem(row, rows.WRONG_FIELDS, ",".join(record), detail)
    return RawRow(row, dict(zip(header, record, strict=True)))
