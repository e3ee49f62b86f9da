"""The rows of a selection: where they lie, written as a trainer takes them, read back as items."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zpd_ray import schema
from zpd_ray.errors import ZpdError
from zpd_ray.rundir.layout import SELECT, StageFiles
from zpd_ray.rundir.run import Run
from zpd_ray.rundir.store import Store


def selection_directory(run: Run, stage: int, method: str) -> str:
    """Where what ``method`` has selected at a stage lies: ``selected``, ``chosen`` and selection.json.

    Raises ZpdError for a method that the run has not selected by.
    """
    if method not in run.methods:
        raise ZpdError(f"the run in {run.store.root} selects by {', '.join(run.methods)}; got {method!r}")
    return StageFiles(stage).selection(None if method == run.methods[0] else method)


def selected_stages(run: Run, method: str) -> list[int]:
    """Stages whose selection by ``method`` is finished. Raises ZpdError when there is none."""
    directories = {t: selection_directory(run, t, method) for t in range(run.config.stages)}
    found = [t for t, directory in directories.items() if run.store.exists(f"{directory}/{SELECT.closes}")]
    if not found:
        raise ZpdError(
            f"the run in {run.store.root} has selected nothing by {method} yet; take it on with "
            "`zpd-ray select`"
        )
    return found


def check_selected(run: Run, stage: int, method: str) -> None:
    """Raises ZpdError when a stage's selection by ``method`` is not finished."""
    found = selected_stages(run, method)
    if stage not in found:
        raise ZpdError(
            f"stage {stage} has no finished selection by {method} in {run.store.root}; expected one of "
            f"{', '.join(map(str, found))}"
        )


def to_selected(items: pa.Table, completes: bool = True) -> pa.Table:
    """``schema.SELECTED`` rows of items (``schema.ITEM``) that have the columns of ``schema.SELECTION``.

    completes: whether the response is to be trained on; else completions are empty lists.
    """
    n = items.num_rows
    said = [items[name].combine_chunks() for name in ("response", "response_more")]
    turns = [pa.array(["assistant"] * n, pa.string()), *said]
    completion = pa.ListArray.from_arrays(
        np.arange(n + 1, dtype=np.int32) if completes else np.zeros(n + 1, dtype=np.int32),
        pa.StructArray.from_arrays(turns, fields=list(schema.MESSAGE)),
        type=schema.PAIR.field("completion").type,
    )
    pair = {"prompt": items["messages"], "completion": completion}
    columns = [pair[name] if name in pair else items[name] for name in schema.SELECTED.names]
    return pa.table(columns, names=schema.SELECTED.names).cast(schema.SELECTED)


def read_selected(store: Store, name: str, columns: list[str]) -> pa.Table:
    """Some columns of a file of a selection, with ``messages``, ``response``, ``response_more`` and ``tools``
    as items have them.

    response is "" where there is no reference.
    """
    rows = store.read_table(name, ["prompt", "completion", "tools", *columns])
    n, turns = rows.num_rows, pc.list_flatten(rows["completion"].combine_chunks())
    said, more = (pc.struct_field(turns, field) for field in ("content", "more"))
    if len(turns) != n:
        said, more = pa.array([""] * n, pa.string()), pa.nulls(n, pa.string())
    item = {"messages": rows["prompt"], "response": said, "response_more": more, "tools": rows["tools"]}
    return pa.table(item | {name: rows[name] for name in columns})
