"""Finding items of a run by their id or their place: parts are read one at a time, and only a few columns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import EVALUATION, POOL

_PLACE = re.compile(r"(.+):(\d+)")
PLACED = ["source_file", "source_row"]


@dataclass(frozen=True)
class Found:
    """Where an item lies: a row of a part of the pool."""

    part: str
    row: int


def find_items(run: Run, asked: list[str], items: str = POOL) -> dict[str, Found]:
    """Where those lie that are in ``items`` (the pool), by what was asked: an id, or FILE:ROW.

    FILE is a source file's path or the end of it, ROW counts from 0. An item of that id goes first. Stops
    when all are found.
    """
    found: dict[str, Found] = {}
    places: dict[str, Found] = {}
    columns = ["item_id", *(PLACED if any(map(_PLACE.fullmatch, asked)) else [])]
    for part in run.store.names(items):
        table = run.store.read_table(f"{items}/{part}", columns)
        for name in asked:
            if (row := _first(pc.equal(table["item_id"], name))) is not None:
                found[name] = Found(part, row)
            elif (row := _at_place(table, name)) is not None:
                places[name] = Found(part, row)
        if len(found) == len(asked):
            break
    return places | found


def find_quarantined(run: Run, name: str) -> dict[str, Any] | None:
    """The quarantined row (``schema.QUARANTINE``) at a place, or the first in which the id is spelled out.

    A row in quarantine has no id of its own: it is looked for in what was said of the row and in its first
    200 characters.
    """
    word = rf"(^|[^\w-]){re.escape(name)}($|[^\w-])"
    for directory in (f"quarantine/{POOL}", f"quarantine/{EVALUATION}"):
        for file in run.store.names(directory):
            table = run.store.read_table(f"{directory}/{file}")
            row = _at_place(table, name)
            if row is None:
                texts = (pc.fill_null(table[column], "") for column in ("detail", "content"))
                row = _first(pc.or_(*(pc.match_substring_regex(text, word) for text in texts)))
            if row is not None:
                found: dict[str, Any] = table.slice(row, 1).to_pylist()[0]
                return found
    return None


def missing(run: Run, name: str) -> str:
    """Why a run has no such item, as far as it knows, in a sentence."""
    if run.store.exists(f"{EVALUATION}.json") and find_items(run, [name], EVALUATION):
        return f"{name!r} is in the evaluation set, which is never selected from"
    pool = run.store.read_json(f"{POOL}.json")
    return (
        f"the run in {run.store.root} has no item {name!r}, in its pool or in quarantine; of rows that "
        f"repeat others ({pool['duplicates']}) or are in the evaluation set, too ({pool['overlap']}), no "
        "record is kept; give an id as `zpd-ray show` lists them, or a place as FILE:ROW"
    )


def _at_place(table: pa.Table, name: str) -> int | None:
    """The row that came from the place FILE:ROW; None where there is none, or ``name`` is no place."""
    place = _PLACE.fullmatch(name)
    if place is None or "source_row" not in table.column_names:
        return None
    here = pc.equal(table["source_row"], int(place[2]))
    return _first(pc.and_(here, pc.ends_with(table["source_file"], place[1])))


def _first(mask: pa.ChunkedArray) -> int | None:
    row = pc.index(mask, True).as_py()
    return row if row >= 0 else None
