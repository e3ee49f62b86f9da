"""Which group of items each item of a part belongs to."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zpd_ray.errors import ZpdError
from zpd_ray.grouping import FEWEST, frequent
from zpd_ray.rundir.layout import POOL
from zpd_ray.rundir.run import Run
from zpd_ray.selection.quotas import MOST


def group_table(run: Run, parts: list[str]) -> list[str]:
    """Names of the groups that are told apart, by how often they are in some parts of the pool.

    Items come to parts by a hash of their id: a few parts are a sample. Raises ZpdError where there is none.
    """
    if names := frequent(_counted(run, parts)):
        return names
    raise ZpdError(
        f"ability.groups = true, and no group of the pool has {FEWEST} items; expected groups, as skills or "
        'domains are: map the column that holds them (pool.columns = { group = "topic" }), or leave it out'
    )


def named_groups(run: Run, parts: list[str], key: str) -> list[str]:
    """Names of the groups that have a part of their own in something: the 100 largest, ties by name.

    As `group_table`, however small. Raises ZpdError, which names the config's ``key``, where no item of these
    parts has a group.
    """
    counts = _counted(run, parts)
    if counts:
        return sorted(counts, key=lambda name: (-counts[name], name))[:MOST]
    raise ZpdError(
        f"{key} asks for groups, and no item of the pool has one; expected groups, as skills or domains are: "
        'map the column that holds them (pool.columns = { group = "topic" }), or leave it out'
    )


def group_numbers(run: Run, part: str, names: list[str]) -> NDArray[np.int64]:
    """The place in ``names`` of each item's group, len(names) where it is not there: (n,)."""
    at = pc.index_in(_column(run, part), pa.array(names, pa.string()))
    return np.asarray(pc.fill_null(at, len(names)).to_numpy(), dtype=np.int64)


def group_names(run: Run, part: str) -> NDArray[np.str_]:
    """The group of each item of a part, "" where it has none: (n,)."""
    return np.array(pc.fill_null(_column(run, part), "").to_pylist(), dtype=np.str_)


def _counted(run: Run, parts: list[str]) -> Counter[str]:
    """Items by group over some parts; "" is no group."""
    counts: Counter[str] = Counter()
    for part in parts:
        told = pc.value_counts(_column(run, part).drop_null())
        pairs = zip(told.field("values").to_pylist(), told.field("counts").to_pylist(), strict=True)
        counts.update({name: count for name, count in pairs if name})
    return counts


def _column(run: Run, part: str) -> pa.ChunkedArray:
    return run.store.read_table(f"{POOL}/{part}", ["group"])["group"]
