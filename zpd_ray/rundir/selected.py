"""The rows of a selection: where they lie, and the items that lie there, as a trainer takes them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from zpd_ray import schema
from zpd_ray.errors import ZpdError
from zpd_ray.rundir.layout import SELECT, StageFiles
from zpd_ray.rundir.places import items_at, pieces
from zpd_ray.rundir.run import Run


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


def ranked(run: Run, stage: int, method: str | None = None) -> Iterator[pa.Table]:
    """Where the items lie that ``method`` (None: the one trained on) has selected, in order of rank.

    A table of ``schema.RANK`` for each file. Raises ZpdError as ``selection_directory`` does.
    """
    directory = selected_files(run, stage, method)
    for name in run.store.names(directory):
        yield run.store.read_table(f"{directory}/{name}")


def selected_files(run: Run, stage: int, method: str | None = None) -> str:
    """The directory of those files."""
    return f"{selection_directory(run, stage, method or run.methods[0])}/selected"


def selected_tables(run: Run, stage: int, method: str | None = None) -> Iterator[pa.Table]:
    """The selected items themselves, joined with the pool: tables of ``schema.SELECTED``, in order of rank.

    A table for each file of the selection, at most some 50,000 rows, and as much memory as it takes. Raises
    ZpdError as ``selection_directory`` does.
    """
    for ranks in ranked(run, stage, method):
        found = [_joined(run, stage, some, _OF_ITEM) for some in pieces(ranks)]
        yield pa.concat_tables([to_selected(items, run.config.completes) for items in found])


_KNOWN = [*schema.PLACE.names, *schema.SELECTION.names]
_OF_ITEM = [name for name in schema.ITEM.names if name not in _KNOWN]
TURNS = ["messages", "response", "response_more", "tools"]


def _joined(run: Run, stage: int, ranks: pa.Table, columns: list[str]) -> pa.Table:
    """The rows of a selection with columns of their items."""
    items = items_at(run, stage, ranks, columns)
    for name in ranks.column_names:
        items = items.append_column(name, ranks[name])
    return items


def due(run: Run, stage: int, places: pa.Table, columns: list[str]) -> pa.Table:
    """What a stage trains on at some places (``schema.PLACE``): ``TURNS``, and some columns of ``places``.

    response is "" where there is none.
    """
    items = items_at(run, stage, places, TURNS)
    if not run.config.completes:
        nothing = {"response": pa.array([""] * items.num_rows, pa.string())}
        nothing["response_more"] = pa.nulls(items.num_rows, pa.string())
        for name, values in nothing.items():
            items = items.set_column(TURNS.index(name), name, values)
    for name in columns:
        items = items.append_column(name, places[name])
    return items


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
