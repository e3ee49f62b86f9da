"""Rows of JSON files: an object per line, or one array of objects."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from itertools import islice

from zpd_ray.errors import ZpdError
from zpd_ray.readers import rows, streams
from zpd_ray.readers.rows import RawRow, problem
from zpd_ray.readers.sources import SourceFile

_DECODER = json.JSONDecoder()
_SPACE = " \t\n\r\ufeff"
_ARRAY = re.compile(rb"\[\s*(\{|$)")  # how a line begins that opens an array of objects


def json_rows(file: SourceFile) -> Iterator[RawRow]:
    """Rows of a file of lines; of a .json file whose first character is ``[``, the elements of the array.

    Raises ZpdError for a file of lines that is one array, or whose objects go over several lines.
    """
    return _array_rows(file) if is_array(file) else _line_rows(file)


def is_array(file: SourceFile) -> bool:
    """Whether it is called .json and begins as an array does."""
    if file.extension != ".json":
        return False
    try:
        first = next(streams.chunks(file), b"")
    except streams.DamagedError:
        return False
    return first.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"["


def check_layout(file: SourceFile) -> None:
    """Of a file of lines. Raises ZpdError when it is one array, or its objects go over several lines."""
    if first_two := list(islice(_filled(file), 2)):
        _check_layout(file, *first_two)


def _line_rows(file: SourceFile) -> Iterator[RawRow]:
    check_layout(file)
    for line in _filled(file):
        if line.problem:
            yield problem(line.number, line.problem, line.raw, line.detail)
        else:
            yield _line_row(line)


def _filled(file: SourceFile) -> Iterator[streams.Line]:
    return (line for line in streams.lines(file) if line.problem or line.raw.strip())


def _check_layout(file: SourceFile, first: streams.Line, second: streams.Line | None = None) -> None:
    """Raises ZpdError when the lines are no rows. A second line that is a row outweighs a bad first one."""
    start = _without_bom(first).strip()
    rest = second is not None and second.problem is None and _line_row(second).problem == rows.NOT_JSON
    if start == b"{" and rest:
        raise ZpdError(
            f"{file.path} holds JSON objects over several lines, expected each in one line; write them so: "
            f"{streams.piped(file, 'jq -c .')} (jq -c '.data[]' where the rows are a list inside an object, "
            "here one named data)"
        )
    if _ARRAY.match(start) and (rest or (second is None and start != b"[")):
        in_lines = streams.piped(file, "jq -c '.[]'")
        raise ZpdError(
            f"{file.path} is one JSON array, expected an object in each line; an array is read where the "
            f"file is called .json, so rename it, or write its elements in lines: {in_lines}"
        )


def _without_bom(line: streams.Line) -> bytes:
    return line.raw.removeprefix(codecs.BOM_UTF8) if line.number == 0 else line.raw


def _line_row(line: streams.Line) -> RawRow:
    return line_row(line.number, _without_bom(line))


def line_row(number: int, raw: bytes) -> RawRow:
    """The row in a line without its byte order mark."""
    try:
        value = _DECODER.decode(raw.decode())
    except UnicodeDecodeError as error:
        return problem(number, rows.NOT_UTF8, raw, str(error))
    except (ValueError, RecursionError) as error:  # ValueError also for integers of thousands of digits
        return problem(number, rows.NOT_JSON, raw, str(error))
    if type(value) is not dict:
        return _not_an_object(number, value, raw)
    return RawRow(number, value)


def _not_an_object(row: int, value: object, raw: bytes | str) -> RawRow:
    return problem(row, rows.NOT_AN_OBJECT, raw, f"got {rows.kind_of(value)}, expected an object {{...}}")


class _Window:
    """The part of a text that is not decoded yet, filled as needed."""

    def __init__(self, file: SourceFile) -> None:
        self._chunks = streams.chunks(file)
        # Stray bytes become surrogates, which the item reader refuses, row by row.
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._damage: streams.DamagedError | None = None
        self.text, self.position = "", 0

    def fill(self) -> bool:
        """Drop what was used and double the rest; False at the end.

        Raises DamagedError when all that is sound has been given.
        """
        if self._damage:
            raise self._damage
        self.text, self.position = self.text[self.position :], 0
        left = len(self.text)
        try:
            while len(self.text) <= 2 * left and (chunk := next(self._chunks, b"")):
                self.text += self._decode(chunk)
        except streams.DamagedError as error:
            self._damage = error
        return len(self.text) > left or self._damage is not None

    def next_character(self) -> str:
        """The next character that is not space, not consumed; empty at the end."""
        while True:
            while self.position < len(self.text) and self.text[self.position] in _SPACE:
                self.position += 1
            if self.position < len(self.text):
                return self.text[self.position]
            if not self.fill():
                return ""

    def take(self, character: str) -> None:
        """Consume one expected character. Raises ValueError when it is another."""
        if (got := self.next_character()) != character:
            raise ValueError(f"expected {character!r}, got {got!r}")
        self.position += 1

    def value(self) -> object:
        """The next JSON value. Raises ValueError when there is none, or it is too long."""
        self.next_character()
        while True:
            error = ValueError("the file ends in the middle of a value")
            try:
                value, end = _DECODER.raw_decode(self.text, self.position)
                if end < len(self.text) or not self.fill():  # a number may go on in the next chunk
                    self.position = min(end, len(self.text))
                    return value
                continue
            except RecursionError as deep:
                raise ValueError("nested too deeply") from deep
            except ValueError as invalid:
                error = invalid
            if len(self.text) - self.position > rows.MAX_ROW_BYTES or not self.fill():
                raise error


def _array_rows(file: SourceFile) -> Iterator[RawRow]:
    """Within an array there is no telling where the next element starts, so the first fault ends the file."""
    window, row = _Window(file), 0
    try:
        window.take("[")
        while window.next_character() != "]":
            if row:
                window.take(",")
            value = window.value()
            yield RawRow(row, value) if isinstance(value, dict) else _not_an_object(row, value, repr(value))
            row += 1
    except streams.DamagedError as error:
        yield problem(row, rows.DAMAGED, window.text[window.position :], str(error))
    except ValueError as error:
        detail = f"{error}; the array is not read beyond this place"
        yield problem(row, rows.NOT_JSON, window.text[window.position :][: rows.EXCERPT], detail)
