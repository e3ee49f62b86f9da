"""Near duplicates left out of a selection: which items better ones nearly repeat.

Bands are made once of each part of the pool. At each selection they meet by their keys: at the driver where
the pool is small, else in a shuffle, of which no task holds more than a share.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from zpd_ray.pipeline.cluster import parts
from zpd_ray.pipeline.select.scoring import Scoring
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import BANDS, POOL
from zpd_ray.selection.near import COLUMNS, band_keys, crowded, texts_of

BANDED = pa.schema(
    [("bucket", pa.int64()), ("band", pa.uint64()), ("key", pa.uint64()), ("place", pa.int64())]
)
BUCKET_ROWS = 2_000_000  # bands that a task holds
ROW_BITS = 32  # of a place: the number of the part above them, the row below


def without_near_duplicates(scoring: Scoring, small: bool) -> Scoring:
    """The scoring whose zone has left out what ``select.diverse.near_duplicates`` says; itself without it.

    Writes near/ in the selection's directory: the rows of each part that are left out. small: whether the
    bands of all items may be brought to one place.
    """
    run, most = scoring.run, scoring.run.config.select.diverse.near_duplicates
    if most is None:
        return scoring
    _make_bands(run)
    names = run.store.names(POOL)
    buckets = 1 if small else _buckets(run)
    rows = parts.tables(names, partial(_bands_of, scoring, names, buckets))
    if small:
        found: Any = rows.iter_batches(batch_size=None, batch_format="pyarrow")
        _write(scoring, names, _crowded(most, pa.concat_tables([BANDED.empty_table(), *found])))
    else:
        left_out = rows.groupby("bucket", num_partitions=buckets).map_groups(
            partial(_crowded, most), batch_format="pyarrow"
        )
        write = partial(_write, scoring, names)
        list(left_out.groupby("part").map_groups(write, batch_format="pyarrow").iter_rows())
    return replace(scoring, thinned=True)


def _buckets(run: Run) -> int:
    items = run.store.read_json(f"{POOL}.json")["items"]
    return max(1, -(-items * len(COLUMNS) // BUCKET_ROWS))


def _make_bands(run: Run) -> None:
    """bands/: of each item of each part the keys of its bands, as the pool has the items."""
    there = set(run.store.names(BANDS))

    def of_part(name: str) -> int:
        items = run.store.read_table(f"{POOL}/{name}", ["messages", "response", "response_more"])
        keys = band_keys(texts_of(items))
        run.store.write_table(f"{BANDS}/{name}", pa.table(list(keys.T), schema=COLUMNS))
        return len(keys)

    parts.total([name for name in run.store.names(POOL) if name not in there], of_part, parts.added)


def _bands_of(scoring: Scoring, names: list[str], buckets: int, name: str) -> pa.Table:
    """A row for each band of each item of a part that may be chosen."""
    ranked = scoring.ranked(name, "zone")
    table = scoring.run.store.read_table(f"{BANDS}/{name}").take(ranked.rows)
    band = np.stack([column.to_numpy() for column in table.columns], axis=1).ravel()
    place = (names.index(name) << ROW_BITS) + ranked.rows
    of_item = [np.repeat(column, len(COLUMNS)) for column in (ranked.keys, place)]
    bucket = (band % np.uint64(buckets)).astype(np.int64)
    return pa.table([bucket, band, *of_item], schema=BANDED)


def _crowded(most: int, rows: pa.Table) -> pa.Table:
    """Parts (their numbers) and rows of the items that bands leave out."""
    band, key, place = (rows[name].to_numpy() for name in ("band", "key", "place"))
    places = crowded(band, key, place, most)
    return pa.table({"part": places >> ROW_BITS, "row": places & ((1 << ROW_BITS) - 1)})


def _write(scoring: Scoring, names: list[str], left_out: pa.Table) -> pa.Table:
    """The rows of some parts, each to the file of its part."""
    part, row = (left_out[name].to_numpy() for name in ("part", "row"))
    for number in np.unique(part).tolist():
        rows = np.unique(row[part == number])
        scoring.run.store.write_table(f"{scoring.near}/{names[number]}", pa.table({"row": rows}))
    return left_out.slice(0, 0)
