"""Rows to two tables: items, and the rows that are none with the reason why."""

from __future__ import annotations

import json
from hashlib import sha256
from json.encoder import encode_basestring as _quote  # a JSON string, not escaped to ASCII
from typing import Any

import numpy as np
import pyarrow as pa

from zpd_ray import schema
from zpd_ray.config import SourceConfig
from zpd_ray.graders import Grader
from zpd_ray.readers.keys import prompt_key
from zpd_ray.readers.rows import NOT_UTF8, RawRow, excerpt
from zpd_ray.readers.shapes import Bad, normalise

MISSING_ANSWER = "missing answer"
UNGRADABLE_ANSWER = "answer cannot be graded"

TOKEN_COLUMNS = ("prompt_tokens", "response_tokens")  # added where the tokenizer is

ITEMS = pa.schema(
    [
        *(column for column in schema.ITEM if column.name not in TOKEN_COLUMNS),
        ("content_hash", pa.uint64()),  # of messages, response and choices: equal for exact duplicates
        ("prompt_key", pa.uint64()),  # of the prompt alone, case and white space aside
    ]
)

_REST = [column.name for column in ITEMS if column.name != "messages"]


def to_items(
    rows: list[RawRow], file: str, source: SourceConfig, grader: Grader
) -> tuple[pa.Table, pa.Table]:
    """Items (schema ``ITEMS``) and bad rows (``schema.QUARANTINE``), each in the order of the rows.

    ``file`` is recorded as the place of every row. An item without an id of its own gets the first 32 hex
    digits of the sha256 over the compact JSON of its messages, response, choices and answer, and of its tools
    and of what its turns hold beside their content where there is any.
    """
    good: list[dict[str, Any]] = []
    bad: list[dict[str, Any]] = []
    for row in rows:
        item = _item(row, source, grader)
        if isinstance(item, Bad):
            bad.append(_quarantined(row, item, file))
        else:
            item["source_file"] = file
            item["source_row"] = row.row
            good.append(item)
    return _table(good), pa.Table.from_pylist(bad, schema=schema.QUARANTINE)


def _table(items: list[dict[str, Any]]) -> pa.Table:
    """Column by column: several times faster than from dicts."""
    columns = {name: pa.array([item[name] for item in items], ITEMS.field(name).type) for name in _REST}
    turns = [turn for item in items for turn in item["messages"]]
    offsets = np.cumsum([0, *(len(item["messages"]) for item in items)], dtype=np.int32)
    texts = [pa.array([turn.get(name) for turn in turns], pa.string()) for name in schema.MESSAGE.names]
    columns["messages"] = pa.ListArray.from_arrays(
        offsets,
        pa.StructArray.from_arrays(texts, fields=list(schema.MESSAGE)),
        type=ITEMS.field("messages").type,
    )
    return pa.table(columns, schema=ITEMS)


def _item(row: RawRow, source: SourceConfig, grader: Grader) -> dict[str, Any] | Bad:
    if row.value is None:
        return Bad(row.problem or "", row.detail)
    item = normalise(row.value, source)
    if isinstance(item, Bad):
        return item
    try:
        _add_keys(item)
    except UnicodeEncodeError as error:  # a lone surrogate: no table can hold it
        return Bad(NOT_UTF8, f"{error.reason} at character {error.start}")
    return _ungradable(item, grader) or item


def _ungradable(item: dict[str, Any], grader: Grader) -> Bad | None:
    if not grader.needs_answer:
        return None
    if item["answer"] is None:
        return Bad(MISSING_ANSWER, "the grader compares with a gold answer; map its column as 'answer'")
    reason = grader.accepts(item["answer"], item["choices"])
    return Bad(UNGRADABLE_ANSWER, reason) if reason else None


def _add_keys(item: dict[str, Any]) -> None:
    """item_id, content_hash and prompt_key. Raises UnicodeEncodeError for text that is no valid Unicode."""
    messages, response, choices = item["messages"], item["response"], item["choices"]
    turns = ",".join(
        f'{{"role":{_quote(turn["role"])},"content":{_quote(turn["content"])}{_also(turn.get("more"))}}}'
        for turn in messages
    )
    options = "null" if choices is None else f"[{','.join(map(_quote, choices))}]"
    said = "null" if response is None else _quote(response)
    told = f"{said}{_also(item['response_more'])},{options}{_also(item['tools'])}"
    digest = sha256(f"[[{turns}],{told}".encode())
    item["content_hash"] = int.from_bytes(digest.digest()[:8], "little")
    asked = (turn["content"] for turn in messages if turn["role"] != "system")
    item["prompt_key"] = prompt_key(asked, choices)
    digest.update(("," + ("null" if item["answer"] is None else _quote(item["answer"])) + "]").encode())
    item["item_id"] = item["item_id"] or digest.hexdigest()[:32]
    f"{item['item_id']}{item['group']}".encode()


def _also(text: str | None) -> str:
    """What is JSON already, after a comma; nothing of None, so that items without it keep their ids."""
    return "" if text is None else f",{text}"


def _quarantined(row: RawRow, bad: Bad, file: str) -> dict[str, Any]:
    content = row.text if row.value is None else _as_text(row.value)
    return {
        "source_file": file,
        "source_row": row.row,
        "reason": bad.reason,
        "detail": excerpt(bad.detail),
        "content": content,
    }


def _as_text(value: dict) -> str:
    try:
        return excerpt(json.dumps(value, default=str))
    except (ValueError, TypeError, RecursionError):
        return excerpt(", ".join(map(str, value)))  # the columns at least
