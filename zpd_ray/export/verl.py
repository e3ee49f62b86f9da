"""verl: prompts with what its rule-based rewards are computed from.

https://verl.readthedocs.io/en/latest/preparation/prepare_data.html: parquet files with ``data_source`` (which
picks the reward function), ``prompt`` (messages), ``ability`` (the category of the task), ``reward_model``
(style, ground_truth) and ``extra_info`` (split, index). Of prompts alone ground_truth may be null, for a
reward function that judges responses without it; elsewhere a row without a gold answer is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zpd_ray.export.base import Rows
from zpd_ray.export.conversations import check_plain, plain
from zpd_ray.export.files import check_filled, write_parquet

DATA_SOURCE = "zpd-ray"


class Verl:
    """Rows that came in verl's own columns keep their data_source and ability; others get the group."""

    needs = ()
    hint = (
        "data.train_files takes the list of files in {into}; rows that had no data_source of their own have "
        f"{DATA_SOURCE!r}, for which verl takes a custom_reward_function of yours"
    )

    def write(self, rows: Rows, directory: Path) -> None:
        """A file per file of the selection. Raises ZpdError for a row with tools, or no gold answer (see the
        module)."""
        first = 0

        def convert(table: pa.Table) -> pa.Table:
            nonlocal first
            if not rows.prompts_alone:
                check_filled(table, "answer", "verl")
            index = pa.array(np.arange(first, first + table.num_rows))
            first += table.num_rows
            return _converted(table, index, rows.carried)

        def turns(table: pa.Table) -> pa.Table:
            check_plain(table, "verl")
            return plain(table)

        write_parquet(rows, directory, convert, turns)


def _converted(table: pa.Table, index: pa.Array, carried: tuple[str, ...]) -> pa.Table:
    n = table.num_rows
    extra = [json.loads(text) if text else {} for text in table["extra"].to_pylist()]
    group = pc.fill_null(table["group"], "").to_pylist()
    rewards = {"style": pa.array(["rule"] * n), "ground_truth": table["answer"]}
    info = {"split": pa.array(["train"] * n), "index": index, "item_id": table["item_id"]}
    return pa.table(
        {
            "data_source": pa.array([_text(row, "data_source", DATA_SOURCE) for row in extra], pa.string()),
            "prompt": table["prompt"],
            "ability": pa.array(map(_text, extra, ["ability"] * n, group), pa.string()),
            "reward_model": _struct(rewards),
            "extra_info": _struct(info | {name: table[name] for name in carried}),
        }
    )


def _text(row: dict[str, Any], name: str, otherwise: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else otherwise


def _struct(columns: dict[str, Any]) -> pa.Array:
    arrays = [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in columns.values()]
    return pa.StructArray.from_arrays(arrays, names=list(columns))
