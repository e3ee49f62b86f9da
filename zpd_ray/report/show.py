"""Lists of what a stage has selected, in order of rank, filtered as the files are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from zpd_ray.errors import ZpdError
from zpd_ray.rundir import Run
from zpd_ray.rundir.places import items_at
from zpd_ray.rundir.records import load_selection
from zpd_ray.rundir.selected import ranked, selection_directory

REASONS = ("zone", "nearest", "score", "replay")
COLUMNS = ["rank", "item_id", "group", "b", "b_sd", "p", "score", "reason"]


@dataclass(frozen=True)
class Filters:
    """Which items to list. None: all. p: from and to, both included."""

    reason: str | None = None
    group: str | None = None
    p: tuple[float, float] | None = None

    def of(self, rows: pa.Table) -> pa.Table:
        """The rows that pass."""
        mask = pa.chunked_array([pa.array([True] * rows.num_rows, pa.bool_())])
        if self.reason is not None:
            mask = pc.and_(mask, pc.equal(rows["reason"], self.reason))
        if self.group is not None:
            mask = pc.and_(mask, pc.equal(pc.fill_null(rows["group"], ""), self.group))
        if self.p is not None:
            low, high = self.p
            mask = pc.and_(mask, pc.and_(pc.greater_equal(rows["p"], low), pc.less_equal(rows["p"], high)))
        return rows.filter(mask)


def between(text: str) -> tuple[float, float]:
    """``0.4:0.6`` as two numbers; either may be left out. Raises ZpdError for anything else."""
    low, colon, high = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return float(low or 0.0), float(high or 1.0)
    except ValueError:
        raise ZpdError(f"--p got {text!r}; expected two probabilities, as in --p 0.4:0.6") from None


def listed(run: Run, stage: int, method: str, filters: Filters, limit: int) -> Iterator[dict[str, Any]]:
    """Rows of ``COLUMNS`` and ``prompt`` (messages) in order of rank, at most ``limit``.

    Reads no file after the last one that is needed. Raises ZpdError for a reason that there is not, or a
    group that nothing was selected from.
    """
    chosen = load_selection(run.store, selection_directory(run, stage, method))
    _check(filters, set(chosen.groups))
    left = limit
    for ranks in ranked(run, stage, method):
        passing = filters.of(ranks).slice(0, left)
        prompts = items_at(run, stage, passing, ["messages"])["messages"]
        yield from passing.select(COLUMNS).append_column("prompt", prompts).to_pylist()
        left -= passing.num_rows
        if left <= 0:
            return


def _check(filters: Filters, groups: set[str]) -> None:
    if filters.reason is not None and filters.reason not in REASONS:
        raise ZpdError(f"--reason got {filters.reason!r}; expected one of {', '.join(REASONS)}")
    if filters.group is not None and filters.group not in groups:
        some = ", ".join(sorted(filter(None, groups))[:10]) or "none: the items have no group"
        raise ZpdError(f"nothing was selected of the group {filters.group!r}; groups are {some}")
