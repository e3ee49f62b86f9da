"""Blocks of rows: as columns where the file or arrow's reader of JSON gives them, else row by row.

A block yields every row once: ``pieces`` those that could be had as columns, ``raw`` any of them as
``formats.read`` would give it. Arrow reads less than Python does and nothing else: what it refuses (numbers
among texts, a key given twice, invalid UTF-8) is read row by row.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from itertools import islice
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.json
from numpy.typing import NDArray

from zpd_ray.readers import streams
from zpd_ray.readers.csv_rows import csv_rows
from zpd_ray.readers.json_rows import check_layout, is_array, json_rows, line_row
from zpd_ray.readers.pairs import Piece
from zpd_ray.readers.rows import RawRow, problem
from zpd_ray.readers.sources import SourceFile
from zpd_ray.readers.spans import Span
from zpd_ray.readers.tables import batch_rows, table_batches

Places = NDArray[np.int64]

WHOLE = Span()
FEW = 32  # rows that are not worth another look for those that arrow reads
MOST = 1 << 26  # bytes of columns at once: what is made of them stays far below arrow's 2 GiB
_LOOKED_AT = 8  # rows, for the types of their columns
_OPENS, _CLOSES, _RETURN, _NEWLINE = b"{}\r\n"
_TYPES = {str: pa.string(), int: pa.int64(), bool: pa.bool_(), type(None): pa.null()}


class Block(Protocol):
    """Some rows of a file, in its order. numbers: int64 (n,), ``RawRow.row`` of each."""

    numbers: Places

    def pieces(self) -> Iterator[Piece]:
        """Rows as columns, some of them or all, each at most once."""

    def raw(self, places: Places) -> list[RawRow]:
        """Some rows as they are."""


def blocks(file: SourceFile, rows_per_block: int = 10_000, span: Span = WHOLE) -> Iterator[Block]:
    """All rows of a file, or of a span of it, in blocks that are not empty.

    ``rows_per_block`` is the most that one holds, save for lines of JSON, of which it holds those of a chunk
    of 1 MiB. Raises ZpdError as ``formats.read`` does.
    """
    return (block for block in _blocks(file, rows_per_block, span) if len(block.numbers))


def _blocks(file: SourceFile, rows_per_block: int, span: Span) -> Iterator[Block]:
    if file.format in ("parquet", "arrow"):
        for start, batch in table_batches(file, rows_per_block, slice(span.start, span.stop), span.first):
            yield TableBlock(start, batch)
    elif file.format == "jsonl" and not is_array(file):
        if span.start == 0:
            check_layout(file)
        for run in streams.runs(file, span.start, span.stop, span.first):
            yield _few(run) if isinstance(run, streams.Line) else LineBlock(run)
    else:
        rows, kind = (csv_rows(file), RecordBlock) if file.format == "csv" else (json_rows(file), RowBlock)
        while batch := list(islice(rows, rows_per_block)):
            yield kind(batch)


def _is_valid(batch: pa.RecordBatch) -> bool:
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _few(line: streams.Line) -> RowBlock:
    return RowBlock([problem(line.number, line.problem or "", line.raw, line.detail)])


class RowBlock:
    """Rows that there are as rows alone."""

    def __init__(self, rows: list[RawRow]) -> None:
        self._rows = rows
        self.numbers = np.array([row.row for row in rows], np.int64)

    def pieces(self) -> Iterator[Piece]:
        """None."""
        return iter(())

    def raw(self, places: Places) -> list[RawRow]:
        """Some rows."""
        return [self._rows[place] for place in places.tolist()]


class RecordBlock(RowBlock):
    """Records of a CSV file: every field is a text, every record has all of them."""

    def pieces(self) -> Iterator[Piece]:
        """The records that are whole, if all of them are valid Unicode."""
        records = [(place, row.value) for place, row in enumerate(self._rows) if row.value]
        names = list(records[0][1]) if records else []
        try:
            columns = [pa.array([record[name] for _, record in records], pa.string()) for name in names]
            table = pa.table(columns, names)
        except UnicodeEncodeError:  # stray bytes, which the item reader refuses, row by row
            return
        if names:
            yield Piece(np.array([place for place, _ in records]), table)


class TableBlock:
    """Rows of a Parquet or Arrow file; start: number of the first."""

    def __init__(self, start: int, batch: pa.RecordBatch) -> None:
        self._batch, self._start = batch, start
        self.numbers = np.arange(start, start + batch.num_rows)

    def pieces(self) -> Iterator[Piece]:
        """All but those about rows whose text is no UTF-8."""
        yield from self._sound(0, self._batch.num_rows)

    def _sound(self, start: int, stop: int) -> Iterator[Piece]:
        part = self._batch.slice(start, stop - start)
        if part.nbytes <= MOST and _is_valid(part):
            yield Piece(np.arange(start, stop), pa.Table.from_batches([part]))
        elif stop - start > FEW:
            middle = (start + stop) // 2
            yield from self._sound(start, middle)
            yield from self._sound(middle, stop)

    def raw(self, places: Places) -> list[RawRow]:
        """Some rows."""
        if len(places) == 0:
            return []
        if len(places) == self._batch.num_rows:
            return batch_rows(self._batch, self._start)
        numbers = self.numbers[places].tolist()
        rows = batch_rows(self._batch.take(pa.array(places)), 0)
        return [row._replace(row=number) for row, number in zip(rows, numbers, strict=True)]


class LineBlock:
    """Lines of JSON; blank ones count, and are no rows."""

    def __init__(self, run: streams.Run) -> None:
        marked = run.number == 0 and run.text.startswith(codecs.BOM_UTF8)
        text = run.text.removeprefix(codecs.BOM_UTF8) if marked else run.text
        self._text = text if text.endswith(b"\n") else text + b"\n"
        data = np.frombuffer(self._text, np.uint8)
        self._ends = np.flatnonzero(data == _NEWLINE)
        self._starts = np.concatenate([[0], self._ends[:-1] + 1])
        last = data[self._ends - 1]
        returns = (last == _RETURN) & (self._ends > self._starts)  # lines as Windows ends them
        last = np.where(returns, data[np.maximum(self._ends - 2, 0)], last)
        objects = (data[self._starts] == _OPENS) & (last == _CLOSES)
        filled = objects.copy()
        others = np.flatnonzero(~objects)
        filled[others] = [bool(self._line(place).strip()) for place in others.tolist()]
        filled[0] |= marked
        self.numbers = run.number + np.flatnonzero(filled)
        self._starts, self._ends = self._starts[filled], self._ends[filled]
        self._objects = np.flatnonzero(objects[filled])

    def _line(self, place: int) -> bytes:
        return self._text[self._starts[place] : self._ends[place]]

    def raw(self, places: Places) -> list[RawRow]:
        """Some rows."""
        numbers = self.numbers[places].tolist()
        return [
            line_row(number, self._line(place))
            for number, place in zip(numbers, places.tolist(), strict=True)
        ]

    def pieces(self) -> Iterator[Piece]:
        """What arrow's reader takes, halving what it refuses."""
        yield from self._readable(self._objects)

    def _readable(self, places: Places) -> Iterator[Piece]:
        if len(places) == 0:
            return
        text, lines = self._texts(places)
        table = _read(text, self._types(places), len(places))
        if table is not None:
            yield Piece(places, table, lines)
        elif len(places) > FEW:
            for half in np.array_split(places, 2):
                yield from self._readable(half)

    def _texts(self, places: Places) -> tuple[bytes, pa.BinaryArray]:
        """Lines one after the other, and as an array, which ends each with its newline."""
        starts, stops = self._starts[places], self._ends[places] + 1
        if stops[-1] - starts[0] == (stops - starts).sum():  # nothing in between
            text = self._text[starts[0] : stops[-1]]
        else:
            text = b"".join([self._text[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True)])
        offsets = np.concatenate([[0], np.cumsum(stops - starts)]).astype(np.int32)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text)]
        return text, pa.Array.from_buffers(pa.binary(), len(places), buffers)

    def _types(self, places: Places) -> pa.Schema | None:
        """Of the columns of the first rows; None where one is neither text nor whole number nor truth."""
        found: dict[str, pa.DataType] = {}
        for row in self.raw(places[:_LOOKED_AT]):
            for name, content in (row.value or {}).items():
                kind = _TYPES.get(type(content))
                known = found.setdefault(name, kind)
                if kind != known and pa.null() not in (kind, known):
                    return None
                found[name] = kind if known == pa.null() else known
        if None in found.values():
            return None
        return pa.schema([(name, pa.string() if kind == pa.null() else kind) for name, kind in found.items()])


def _read(text: bytes, types: pa.Schema | None, rows: int) -> pa.Table | None:
    """Lines of JSON as columns of these types; None where one does not fit, or is more than a row.

    Every line begins with ``{`` and ends with ``}``, so none goes on in the next: as many rows as lines are
    one in each.
    """
    if types is None:
        return None
    try:
        table = pyarrow.json.read_json(
            pa.BufferReader(text),
            pyarrow.json.ReadOptions(use_threads=False, block_size=len(text) + 1),
            pyarrow.json.ParseOptions(explicit_schema=types, unexpected_field_behavior="error"),
        )
        table.validate(full=True)  # of UTF-8, which the reader does not look at
    except pa.ArrowInvalid:
        return None
    return table if table.num_rows == rows else None
