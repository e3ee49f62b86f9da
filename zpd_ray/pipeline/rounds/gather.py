"""A round: items are gathered from their parts into files of their own, measured there, and put back.

A file takes from consecutive parts, so that nothing is shuffled, and as many rows as an engine is busy with.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zpd_ray.pipeline.cluster import parts
from zpd_ray.registry import label
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import POOL, StageFiles
from zpd_ray.rundir.row_groups import GROUP_ROWS

FILES, FEWEST_ROWS = 16, 64  # of a small round, so that several scorers share it; and of a file of it
RowsOf = Callable[[str], NDArray[np.int64]]


def gather(run: Run, directory: str, names: list[str], rows_of: RowsOf, total: int) -> None:
    """Write items/ and places/ (part and row of each) of a round and, last, items.json.

    names: of the parts, ascending; rows_of: the rows of a part, ascending; total: how many they are in all.
    What it writes does not depend on the number of workers.
    """
    for leftover in ("items", "places"):
        run.store.remove(f"{directory}/{leftover}")
    per_file = min(run.config.pool.items_per_part, max(FEWEST_ROWS, total // FILES))
    span = max(1, len(names) * per_file // max(1, total))

    def of_file(first: str) -> int:
        at = bisect_left(names, first)
        return _write_file(run, directory, names[at : at + span], rows_of)

    items = parts.total(names[::span], of_file, parts.added)
    run.store.write_json(f"{directory}/items.json", {"items": items})


def _write_file(run: Run, directory: str, names: list[str], rows_of: RowsOf) -> int:
    """The items of some parts; the file has the name of the first."""
    found = {name: rows_of(name) for name in names}
    found = {name: rows for name, rows in found.items() if len(rows)}
    if not found:
        return 0
    items = [run.store.read_table(f"{POOL}/{name}").take(rows) for name, rows in found.items()]
    part = np.repeat(list(found), [len(rows) for rows in found.values()])
    place = {"part": pa.array(part.tolist(), pa.string()), "row": np.concatenate([*found.values()])}
    run.store.write_table(f"{directory}/places/{names[0]}", pa.table(place))
    run.store.write_table(f"{directory}/items/{names[0]}", pa.concat_tables(items).combine_chunks())
    return len(part)


def put_back(run: Run, stage: int, directory: str, measures: list[str]) -> None:
    """Add what a round has measured to the measurements of the stage, part by part."""

    def of_file(name: str) -> int:
        places = run.store.read_table(f"{directory}/places/{name}")
        for measure in measures:
            found = run.store.read_table(f"{directory}/{label(measure)}/{name}")
            found = found.append_column("row", places["row"])
            for part in pc.unique(places["part"]).to_pylist():
                rows = found.filter(pc.equal(places["part"], part))
                _add(run, f"{StageFiles(stage).measurements(measure)}/{part}", rows)
        return places.num_rows

    parts.total(run.store.names(f"{directory}/items"), of_file, parts.added)


def _add(run: Run, name: str, rows: pa.Table) -> None:
    """Add rows to those of earlier rounds, in order; the same rows again change nothing."""
    if run.store.exists(name):
        before = run.store.read_table(name)
        others = pc.invert(pc.is_in(before["row"], rows["row"].combine_chunks()))
        rows = pa.concat_tables([before.filter(others), rows])
    own = run.config.train.target == "own" and "own" in rows.column_names  # as ``Scorer.measure`` does
    run.store.write_table(name, rows.sort_by("row").combine_chunks(), GROUP_ROWS if own else None)
