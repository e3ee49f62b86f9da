"""Rows of CSV files: a header, then records, whose quoted fields may hold newlines.

The header says what separates the fields: commas, or where it has none, semicolons or tabs.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections import deque
from collections.abc import Iterator

from zpd_ray.errors import ZpdError
from zpd_ray.readers import rows, streams
from zpd_ray.readers.rows import RawRow, problem
from zpd_ray.readers.sources import SourceFile

_QUOTED = re.compile(r'"[^"]*"')


class _LineError(Exception):
    """A line that cannot be given to the CSV reader."""

    def __init__(self, line: streams.Line) -> None:
        super().__init__(line.detail)
        self.line = line


class _Lines:
    """Lines as text for ``csv.reader``. Unlike a generator, it goes on after raising."""

    def __init__(self, file: SourceFile) -> None:
        self._lines = streams.lines(file)
        self._ahead: deque[streams.Line] = deque()
        self.last = ""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._ahead.popleft() if self._ahead else next(self._lines)
        if line.problem:
            raise _LineError(line)
        self.last = _text(line) + "\n"
        return self.last

    def header(self) -> str:
        """The first line that is not blank; it is still to come."""
        for line in self._lines:
            self._ahead.append(line)
            if line.problem or line.raw.strip():
                return _text(line)
        return ""


def _text(line: streams.Line) -> str:
    raw = line.raw.removeprefix(codecs.BOM_UTF8) if line.number == 0 else line.raw
    # Stray bytes become surrogates, which the item reader refuses, row by row.
    return raw.decode("utf-8", "surrogateescape")


def delimiter_of(header: str, is_tsv: bool = False) -> str:
    """What separates the names in the first line of a file, by what is there outside of quotes.

    A comma where there is one; else the more frequent of semicolon and tab; a comma where there is neither.
    In a file that is called .tsv a tab comes first.
    """
    bare = _QUOTED.sub("", header)
    if is_tsv and "\t" in bare:
        return "\t"
    if "," in bare:
        return ","
    return max(",;\t", key=bare.count)  # of equals, the first


def csv_rows(file: SourceFile) -> Iterator[RawRow]:
    """A dict of strings per record. Raises ZpdError when there is no sound header."""
    csv.field_size_limit(rows.MAX_ROW_BYTES)  # one limit for the whole process; the default is 128 KiB
    lines = _Lines(file)
    delimiter = delimiter_of(lines.header(), file.extension == ".tsv")
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
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
            yield _record_row(row, record, header, delimiter)
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


def _record_row(row: int, record: list[str], header: list[str], delimiter: str) -> RawRow:
    if len(record) != len(header):
        detail = f"got {len(record)} fields, expected {len(header)} as in the header"
        return problem(row, rows.WRONG_FIELDS, delimiter.join(record), detail)
    return RawRow(row, dict(zip(header, record, strict=True)))
