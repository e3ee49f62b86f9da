"""Tools in what is exported: messages and definitions as trainers know them, not as JSON beside them.

In Parquet a message with tool calls is a JSON value of its own (arrow's extension type for JSON), which the
datasets library reads as a dict: as columns, every call would have the arguments of all calls, most of them
null. A selection without tools is exported as if there were none.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from zpd_ray.errors import ZpdError

TURNS = ("prompt", "completion")


def check_plain(table: pa.Table, format: str) -> None:
    """Raises ZpdError where there is one, for a format that has no place for it."""
    found = _first_with_more(table)
    if found is not None:
        raise ZpdError(
            f"{format} is given role and content alone, and item {table['item_id'][found].as_py()!r} has "
            "tools, or turns that hold something else; export to trl, axolotl or jsonl"
        )


def plain(table: pa.Table) -> pa.Table:
    """Turns as role and content; no column ``tools``."""
    for name in TURNS:
        lists = table[name].combine_chunks()
        turns = lists.flatten()
        fields = [pc.struct_field(turns, field) for field in ("role", "content")]
        struct = pa.StructArray.from_arrays(fields, names=["role", "content"])
        offsets = pc.subtract(lists.offsets, lists.offsets[0])
        table = _replaced(table, name, pa.ListArray.from_arrays(offsets, struct))
    return table.drop_columns("tools")


def as_json(table: pa.Table) -> pa.Table:
    """Each turn as a JSON value; ``tools`` as text in JSON, which TRL reads."""
    for name in TURNS:
        texts = [
            [json.dumps(whole(turn), ensure_ascii=False) for turn in row] for row in table[name].to_pylist()
        ]
        lists = pa.array(texts, pa.list_(pa.string()))
        values = pa.ExtensionArray.from_storage(pa.json_(), lists.values)
        table = _replaced(table, name, pa.ListArray.from_arrays(lists.offsets, values))
    return table


def unfolded(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a selection for JSON lines; ``tools`` is there where it defines some."""
    row = row | {name: [whole(turn) for turn in row[name]] for name in TURNS}
    tools = row.pop("tools")
    return row | ({"tools": json.loads(tools)} if tools else {})


def whole(turn: dict[str, Any]) -> dict[str, Any]:
    """A message with everything that its turn holds."""
    plain = {"role": turn["role"], "content": turn["content"]}
    return plain | json.loads(turn["more"]) if turn["more"] else plain


def _replaced(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def _first_with_more(table: pa.Table) -> int | None:
    """The first row with tools, or with a turn that holds more than role and content."""
    found = pc.is_valid(table["tools"]).to_numpy()
    for name in TURNS:
        lists = table[name].combine_chunks()
        more = pc.is_valid(pc.struct_field(lists.flatten(), "more"))
        found[pc.list_parent_indices(lists).filter(more).to_numpy()] = True
    return int(found.argmax()) if found.any() else None
