"""A block of rows to items and quarantine: by columns where that is beyond doubt, the rest row by row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from zpd_ray.config import SourceConfig
from zpd_ray.graders import Grader
from zpd_ray.readers.blocks import Block
from zpd_ray.readers.items import to_items
from zpd_ray.readers.pairs import pairs


class Found(NamedTuple):
    """Of a block. items: ``items.ITEMS``; bad: ``schema.QUARANTINE``, each in the order of the rows; names:
    of the columns that are there."""

    items: pa.Table
    bad: pa.Table
    names: list[str]


def find_items(block: Block, file: str, source: SourceConfig, grader: Grader) -> Found:
    """What ``items.to_items`` makes of all rows of the block."""
    names: dict[str, None] = {}
    done = np.zeros(len(block.numbers), bool)
    tables = []
    for piece in block.pieces():
        names |= dict.fromkeys(piece.table.column_names)
        items, kept = pairs(piece, block.numbers[piece.rows], file, source, grader)
        done[piece.rows[kept]] = True
        tables.append(items)
    rows = block.raw(np.flatnonzero(~done))
    names |= dict.fromkeys(name for row in rows for name in row.value or ())
    items, bad = to_items(rows, file, source, grader)
    tables = [table for table in (*tables, items) if table.num_rows]
    if len(tables) > 1:
        items = pa.concat_tables(tables).sort_by("source_row")
    elif tables:
        (items,) = tables
    return Found(items, bad, list(names))
