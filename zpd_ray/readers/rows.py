"""A row as found in a file, and the words that say what is wrong with one."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

# Reasons are few and fixed, so that a run can count them.
NOT_JSON = "not valid JSON"
NOT_AN_OBJECT = "not an object"
NOT_UTF8 = "invalid UTF-8"
TOO_LONG = "row too long"
WRONG_FIELDS = "wrong number of fields"
BAD_CSV = "not valid CSV"
UNREADABLE_VALUE = "unreadable value"
DAMAGED = "damaged file"

EXCERPT = 200  # characters of a bad row that are kept
MAX_ROW_BYTES = 1 << 24  # 16 MiB: longer than any context, short enough to hold

_KINDS = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    Decimal: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


class RawRow(NamedTuple):
    """A row as found. ``row`` counts from 0: the line of a JSONL file (blank lines count, and are skipped),
    the element of a JSON array, the record after the header of a CSV file, the row of a table.

    Exactly one of ``value`` and ``problem`` (a reason above) is set; with a problem, ``text`` is the start of
    the row and ``detail`` says what was wrong with it.
    """

    row: int
    value: dict | None
    problem: str | None = None
    text: str = ""
    detail: str = ""


def kind_of(value: object) -> str:
    """What a value is, in words of JSON; what only tables have (bytes, dates) by its name in Python."""
    return _KINDS.get(type(value), f"a value of type {type(value).__name__}")


def excerpt(raw: bytes | str) -> str:
    """The first characters of a row, made valid UTF-8."""
    if isinstance(raw, str):
        raw = raw[:EXCERPT].encode("utf-8", "backslashreplace")
    return raw[: 4 * EXCERPT].decode("utf-8", "replace")[:EXCERPT]


def problem(row: int, reason: str, raw: bytes | str, detail: str) -> RawRow:
    """A bad row."""
    return RawRow(row, None, reason, excerpt(raw), excerpt(detail))
