"""The files of a selection: in order of rank, each small enough to sort in memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zpd_ray import schema
from zpd_ray.pipeline.cluster.parts import part_name
from zpd_ray.rundir.store import Store
from zpd_ray.selection.keys import Keys
from zpd_ray.selection.top import DIGIT_BITS, Top

ITEMS_PER_FILE = 50_000
# Outside these an item is too hard or too easy to be called in the zone.
ZONE_P = (0.1, 0.9)


@dataclass(frozen=True)
class Buckets:
    """Which file a chosen row goes to, and the rank of the file's first row.

    A file holds a range of first digits of the sort key. ``starts``: by reason, the first digits at which
    files begin; ``ranks``: rank of the first row of each file, zone first.
    """

    starts: dict[str, NDArray[np.int64]]
    ranks: NDArray[np.int64]

    @staticmethod
    def of(zone: Top, replay: Top) -> Buckets:
        """Files of about ITEMS_PER_FILE rows from the histograms of the two selections."""
        starts, ranks, rank = {}, [], 0
        for reason, top in (("zone", zone), ("replay", replay)):
            before = np.concatenate([[0], np.cumsum(top.rows_per_digit)[:-1]])
            reached = before[: top.threshold.first_digit + 1] if top.rows else before[:1]
            # A file begins at the first digit past each multiple of ITEMS_PER_FILE.
            starts[reason] = np.unique(
                np.searchsorted(reached, np.arange(0, reached[-1] + 1, ITEMS_PER_FILE))
            )
            ranks.append(rank + before[starts[reason]])
            rank += top.rows
        return Buckets(starts, np.concatenate(ranks))

    @property
    def count(self) -> int:
        """Number of files, empty ones included."""
        return len(self.ranks)

    def of_keys(self, keys: Keys, reason: str) -> NDArray[np.int64]:
        """File of each key: shape (n,)."""
        digits = (keys >> np.uint64(64 - DIGIT_BITS)).astype(np.int64)
        file = np.searchsorted(self.starts[reason], digits, side="right") - 1
        return file + (len(self.starts["zone"]) if reason == "replay" else 0)


def write_selected(store: Store, directory: str, buckets: Buckets, rows: pa.Table) -> pa.Table:
    """Sort the rows of one file, rank them and write them; a row with the file's sums."""
    bucket = rows["bucket"][0].as_py()
    rows = rows.take(pc.sort_indices(rows, [("key", "ascending"), ("item_id", "ascending")]))
    rank = buckets.ranks[bucket] + np.arange(rows.num_rows)
    rows = rows.append_column("rank", pa.array(rank, pa.int64()))
    store.write_table(
        f"{directory}/{part_name(bucket)}", rows.select(schema.SELECTED.names).cast(schema.SELECTED)
    )
    return pa.Table.from_pylist([{"bucket": bucket, "sums": json.dumps(_sums(rows))}])


def _sums(rows: pa.Table) -> dict[str, Any]:
    """What one file holds: counts, tokens and sums over its zone."""
    zone = rows.filter(pc.equal(rows["reason"], "zone"))
    p, b = zone["p"].to_numpy(), zone["b"].to_numpy()
    groups = pc.value_counts(pc.fill_null(rows["group"], "")).to_pylist()
    return {
        "selected": rows.num_rows,
        "zone": zone.num_rows,
        "tokens": int(rows["response_tokens"].to_numpy().sum()),
        "outside_zone": int(((p < ZONE_P[0]) | (p > ZONE_P[1])).sum()),
        "groups": {count["values"]: count["counts"] for count in groups},
        "b": float(b.sum()),
        "p": float(p.sum()),
    }


def summarise(files: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What was selected from where: counts, tokens and means, from the files' sums in order of rank."""
    counts: Counter[str] = Counter()
    groups: Counter[str] = Counter()
    b, p = 0.0, 0.0
    for file in sorted(files, key=lambda file: file["bucket"]):
        sums = json.loads(file["sums"])
        groups.update(sums.pop("groups"))
        b, p = b + sums.pop("b"), p + sums.pop("p")
        counts.update(sums)
    zone = max(1, counts["zone"])
    return {
        "selected": counts["selected"],
        "zone": counts["zone"],
        "replay": counts["selected"] - counts["zone"],
        "outside_zone": counts["outside_zone"],
        "tokens": counts["tokens"],
        "mean_b": b / zone,
        "mean_p": p / zone,
        "groups": dict(sorted(groups.items())),
    }
