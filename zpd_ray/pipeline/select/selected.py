"""The files of a selection: in order of rank, each small enough to sort in memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zpd_ray import schema
from zpd_ray.matching import zone_of
from zpd_ray.pipeline.cluster.parts import part_name
from zpd_ray.rundir import Run
from zpd_ray.rundir.judging import last_measured
from zpd_ray.rundir.layout import ANSWERS
from zpd_ray.rundir.records import Selection
from zpd_ray.rundir.store import Store
from zpd_ray.selection.keys import Keys
from zpd_ray.selection.top import Starts

ITEMS_PER_FILE = 50_000


@dataclass(frozen=True)
class Files:
    """Which file a chosen row goes to, by its sort key: where the files of each reason begin, zone first."""

    zone: Starts
    replay: Starts

    @property
    def count(self) -> int:
        """Number of files, empty ones included."""
        return len(self.zone.keys) + len(self.replay.keys)

    def first_rank(self, file: int) -> int:
        """Rank of the first row of a file."""
        return int(np.concatenate([self.zone.rows, self.replay.rows])[file])

    def of_keys(self, keys: Keys, reason: str) -> NDArray[np.int64]:
        """File of each key: shape (n,)."""
        starts = self.zone if reason == "zone" else self.replay
        file = np.searchsorted(starts.keys, keys, side="right") - 1
        return file + (len(self.zone.keys) if reason == "replay" else 0)


class Beyond(NamedTuple):
    """Counts over the pool, as of ``records.Selection``."""

    left_out: int
    unanswered: int
    tied: int
    drawn: int
    near_duplicates: int
    passed_over: int


def reasons(looks_for_zone: bool, p: NDArray[np.float64], target_p: float) -> NDArray[np.str_]:
    """Why each item of the zone's share of the budget was taken, by its p: (n,)."""
    low, high = zone_of(target_p)
    inside = (p >= low) & (p <= high)
    return np.where(inside, "zone", "nearest" if looks_for_zone else "score")


def with_own(run: Run, stage: int, part: str, items: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """Items of a part, at these rows; of which the model's own response is trained on, ``own`` says.

    Where that is wanted and it has given a right one, response_tokens are those of it.
    """
    if run.config.train.target != "own" or len(rows) == 0:
        return items.append_column("own", pa.array([False] * len(rows), pa.bool_()))
    tokens = last_measured(run, stage, ANSWERS, part, ["own_tokens"]).answers["own_tokens"].take(rows)
    at = items.schema.get_field_index("response_tokens")
    either = pc.coalesce(tokens, items["response_tokens"])
    items = items.set_column(at, items.schema.field("response_tokens"), either)
    return items.append_column("own", pc.is_valid(tokens))


def write_selected(store: Store, directory: str, files: Files, rows: pa.Table) -> pa.Table:
    """Sort the rows of one file, rank them and write them; a row with the file's sums."""
    file = rows["file"][0].as_py()
    rows = rows.take(pc.sort_indices(rows, [("key", "ascending"), ("item_id", "ascending")]))
    rank = files.first_rank(file) + np.arange(rows.num_rows)
    rows = rows.append_column("rank", pa.array(rank, pa.int64()))
    store.write_table(f"{directory}/{part_name(file)}", rows.select(schema.RANK.names).cast(schema.RANK))
    return pa.Table.from_pylist([{"file": file, "sums": json.dumps(_sums(rows))}])


def _sums(rows: pa.Table) -> dict[str, Any]:
    """What one file holds: counts, tokens and sums over its zone."""
    zone = rows.filter(pc.not_equal(rows["reason"], "replay"))
    p, b = zone["p"].to_numpy(), zone["b"].to_numpy()
    groups = pc.value_counts(pc.fill_null(rows["group"], "")).to_pylist()
    return {
        "selected": rows.num_rows,
        "zone": zone.num_rows,
        "tokens": int(rows["response_tokens"].to_numpy().sum()),
        "own": int(pc.sum(rows["own"]).as_py() or 0),
        "outside_zone": int(pc.sum(pc.not_equal(zone["reason"], "zone")).as_py() or 0),
        "groups": {count["values"]: count["counts"] for count in groups},
        "b": float(b.sum()),
        "p": float(p.sum()),
    }


def summarise(
    files: Iterable[dict[str, Any]],
    budget: int,
    unit: str,
    beyond: Beyond,
    quotas: dict[str, int],
    warn: Callable[[Selection], list[str]],
) -> Selection:
    """What was selected from where, from the files' sums in order of rank; ``warn`` is asked for warnings."""
    counts: Counter[str] = Counter()
    groups: Counter[str] = Counter()
    b, p = 0.0, 0.0
    for file in sorted(files, key=lambda file: file["file"]):
        sums = json.loads(file["sums"])
        groups.update(sums.pop("groups"))
        b, p = b + sums.pop("b"), p + sums.pop("p")
        counts.update(sums)
    zone = max(1, counts["zone"])
    told = Selection(
        selected=counts["selected"],
        zone=counts["zone"],
        replay=counts["selected"] - counts["zone"],
        outside_zone=counts["outside_zone"],
        own=counts["own"],
        tokens=counts["tokens"],
        mean_b=b / zone,
        mean_p=p / zone,
        groups=dict(sorted(groups.items())),
        budget=budget,
        unit=unit,
        warnings=[],
        quotas=quotas,
        **beyond._asdict(),
    )
    return replace(told, warnings=warn(told))
