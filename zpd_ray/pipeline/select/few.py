"""The few items of the pool among which a budget runs out: brought to the driver from all parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zpd_ray.pipeline.cluster import parts
from zpd_ray.pipeline.select.scoring import Ranked, Scoring
from zpd_ray.rundir.layout import POOL
from zpd_ray.selection.keys import Keys

Integers = NDArray[np.int64]
Wanted = Callable[[Integers, Keys], NDArray[np.bool_]]  # groups and keys of a part's items -> which to bring

FEW = pa.schema(
    [
        ("group", pa.int64()),
        ("key", pa.uint64()),
        ("weight", pa.int64()),
        ("part", pa.int64()),
        ("row", pa.int64()),
    ]
)
IDS = pa.schema([("at", pa.int64()), ("item_id", pa.string())])


@dataclass(frozen=True)
class Few:
    """Items, in no order: arrays (n,). group: 0 where there are no groups; part: its number; row: in it."""

    scoring: Scoring
    names: list[str]
    group: Integers
    key: Keys
    weight: Integers
    part: Integers
    row: Integers

    def ids(self, at: Integers) -> list[str]:
        """Of some of them, read from their parts."""
        part, row = self.part[at], self.row[at]
        numbers = {self.names[number]: number for number in np.unique(part).tolist()}
        scoring = self.scoring

        def of_part(name: str) -> pa.Table:
            mine = np.flatnonzero(part == numbers[name])
            return pa.table([mine, scoring.ids(name, row[mine])], schema=IDS)

        found = parts.total(list(numbers), of_part, _joined)
        ids: list[str] = found.sort_by("at")["item_id"].to_pylist()
        return ids


def bring(scoring: Scoring, reason: str, wanted: Wanted) -> Few:
    """The items that may be chosen for a reason, and are wanted."""
    names = scoring.run.store.names(POOL)
    number = {name: at for at, name in enumerate(names)}

    def of_part(name: str) -> pa.Table:
        ranked = scoring.ranked(name, reason)
        group = _groups(scoring, name, ranked)
        inside = wanted(group, ranked.keys)
        rows = ranked.rows[inside]
        part = np.full(len(rows), number[name])
        columns = [group[inside], ranked.keys[inside], ranked.weight[inside], part, rows]
        return pa.table(columns, schema=FEW)

    found = parts.total(names, of_part, _joined)
    return Few(scoring, names, *(found[name].to_numpy() for name in FEW.names))


def _groups(scoring: Scoring, name: str, ranked: Ranked) -> Integers:
    return scoring.groups_of(name, ranked.rows) if scoring.groups else np.zeros_like(ranked.rows)


def _joined(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables)
