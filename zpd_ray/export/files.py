"""What formats have in common: parquet files and lines of JSON, from one table at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zpd_ray.errors import ZpdError
from zpd_ray.export.base import Rows
from zpd_ray.export.conversations import as_json, plain, unfolded

LINES = "train.jsonl"
TOOLS = "tools"  # a column where a row of the selection has some
ROWS_AT_ONCE = 1000  # that are held as Python objects

# What an export for no trainer in particular holds of each item; what is carried comes after it.
PLAIN = ("item_id", "prompt", "completion", "answer", "choices", "group", "source_file", "source_row")


def write_parquet(
    rows: Rows,
    directory: Path,
    convert: Callable[[pa.Table], pa.Table],
    turns: Callable[[pa.Table], pa.Table] | None = None,
) -> list[str]:
    """A parquet file per table, named as ``datasets.load_dataset`` finds them; their paths, in order.

    turns: makes the tables that ``convert`` is given. None: of turns as role and content, without a column
    ``tools``; where some item of the pool has more, of turns in JSON, and with it.
    """
    paths, turns = [], turns or (as_json if rows.have_more else plain)
    for number, table in enumerate(map(turns, rows)):
        path = directory / f"train-{number:05d}-of-{rows.files:05d}.parquet"
        pq.write_table(convert(table), path, compression="zstd")
        paths.append(str(path))
    return paths


def write_lines(
    rows: Rows,
    directory: Path,
    convert: Callable[[dict[str, Any]], dict[str, Any]],
    check: Callable[[pa.Table], None] | None = None,
) -> None:
    """One file of JSON lines in order of stage and rank: what ``convert`` makes of each row.

    Rows are as of ``conversations.unfolded``. check: may raise ZpdError for a table.
    """
    with (directory / LINES).open("w", encoding="utf-8") as file:
        for table in rows:
            if check is not None:
                check(table)
            for row in map(unfolded, _dicts(table)):
                file.write(json.dumps(convert(row), ensure_ascii=False, allow_nan=False) + "\n")


def those(table: pa.Table, names: Iterable[str]) -> pa.Table:
    """Some columns, each once, of them those that are there."""
    return table.select([name for name in dict.fromkeys(names) if name in table.column_names])


def _dicts(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE):
        for row in batch.to_pylist():
            score = row["score"]  # of a method of the user's it may be infinite, which JSON cannot hold
            yield row | {"score": score if math.isfinite(score) else None}


def check_filled(table: pa.Table, column: str, format: str) -> None:
    """Raises ZpdError when a row has no ``completion`` (an empty list) or no ``answer`` (null)."""
    if column == "completion":
        empty = pc.equal(pc.list_value_length(table[column]), 0)
        what = "response to train on (with pool.reference = 'none' or 'prompt' rows have no references)"
        instead = "trl-grpo or verl"
    else:
        empty = pc.is_null(table[column])
        what, instead = "gold answer, which its reward is computed from", "trl, llama-factory or axolotl"
    if pc.any(empty).as_py():
        first = table.filter(empty)["item_id"][0].as_py()
        raise ZpdError(f"{format} needs rows with a {what}; item {first!r} has none; export to {instead}")
