"""The rows of selections, file by file: no more of them is held than one file has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zpd_ray.hashing import item_keys
from zpd_ray.rundir import Run
from zpd_ray.rundir.judging import last_measured
from zpd_ray.rundir.layout import ANSWERS, POOL
from zpd_ray.rundir.selected import selected_files, selected_tables, selection_directory
from zpd_ray.selection.keys import Keys

PASS_RATE = "pass_rate"
SCORES = ("stage", "rank", "reason", "b", "b_sd", "p", "score", PASS_RATE)
EXTRA = ("extra",)

Rates = tuple[Keys, NDArray[np.float64]]


@dataclass(frozen=True)
class SelectedRows:
    """What ``method`` has selected at some stages of a run (see ``export.base.Rows``).

    rated: whether tables have the column ``pass_rate``.
    """

    run: Run
    stages: tuple[int, ...]
    method: str
    rated: bool
    carried: tuple[str, ...]
    place: Path

    @property
    def all_turns(self) -> bool:
        """Whether the run trains on earlier answers of a conversation, too."""
        return self.run.config.train.turns == "all"

    @property
    def have_more(self) -> bool:
        """Whether some item of the pool has tools, or a turn that holds more than role and content."""
        return bool(self.run.store.read_json(f"{POOL}.json")["with_more"])

    @property
    def prompts_alone(self) -> bool:
        """Whether items have no references, and need not have gold answers."""
        return self.run.config.prompts_alone

    @property
    def files(self) -> int:
        """Number of files of the selections."""
        directories = [selected_files(self.run, stage, self.method) for stage in self.stages]
        return sum(len(self.run.store.names(directory)) for directory in directories)

    def __iter__(self) -> Iterator[pa.Table]:
        """In order of stage, then of rank. An item that is replayed at a later stage comes again."""
        for stage in self.stages:
            rates = _pass_rates(self.run, stage, self.method) if self.rated else None
            for table in selected_tables(self.run, stage, self.method):
                table = table.append_column("stage", pa.array([stage] * table.num_rows, pa.int64()))
                yield table if rates is None else table.append_column(PASS_RATE, _rate_of(table, rates))


def _pass_rates(run: Run, stage: int, method: str) -> Rates:
    """Of each selected item its key, ascending, and its pass rate (NaN: no response): 16 bytes an item.

    Selected files are in order of rank and have items of all parts: one pass over the parts instead of one
    for each file.
    """
    keys: list[Keys] = []
    rates: list[NDArray[np.float64]] = []
    directory = f"{selection_directory(run, stage, method)}/chosen"
    for part in run.store.names(directory):
        rows = run.store.read_table(f"{directory}/{part}", ["row"])["row"]
        if len(rows):
            columns = ["item_id", "credit", "rollouts"]
            measured = last_measured(run, stage, ANSWERS, part, columns).take(rows).answers
            credit, rollouts = (measured[name].to_numpy().astype(float) for name in columns[1:])
            keys.append(item_keys(measured["item_id"]))
            rates.append(np.divide(credit, rollouts, out=np.full(len(credit), np.nan), where=rollouts > 0))
    key = np.concatenate([np.zeros(0, np.uint64), *keys])
    order = np.argsort(key)
    return key[order], np.concatenate([np.zeros(0), *rates])[order]


def _rate_of(table: pa.Table, rates: Rates) -> pa.Array:
    """Pass rates of a table's rows: float64 (n,), null where there was no response."""
    keys, values = rates
    found = values[np.searchsorted(keys, item_keys(table["item_id"]))]
    return pa.array(found, pa.float64(), mask=np.isnan(found))
