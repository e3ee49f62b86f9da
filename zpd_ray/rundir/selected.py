"""The rows of a selection: written as a trainer takes them, read back as items."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zpd_ray import schema
from zpd_ray.rundir.store import Store


def to_selected(items: pa.Table, reference: bool = True) -> pa.Table:
    """``schema.SELECTED`` rows of items (``schema.ITEM``) that have the columns of ``schema.SELECTION``.

    reference: whether the response is to be trained on; else completions are empty lists.
    """
    n = items.num_rows
    turns = [pa.array(["assistant"] * n, pa.string()), items["response"].combine_chunks()]
    completion = pa.ListArray.from_arrays(
        np.arange(n + 1, dtype=np.int32) if reference else np.zeros(n + 1, dtype=np.int32),
        pa.StructArray.from_arrays(turns, fields=list(schema.MESSAGE)),
        type=schema.PAIR.field("completion").type,
    )
    pair = {"prompt": items["messages"], "completion": completion}
    columns = [pair[name] if name in pair else items[name] for name in schema.SELECTED.names]
    return pa.table(columns, names=schema.SELECTED.names).cast(schema.SELECTED)


def read_selected(store: Store, name: str, columns: list[str]) -> pa.Table:
    """Some columns of a file of a selection, with ``messages`` and ``response`` as items have them.

    response is "" where there is no reference.
    """
    rows = store.read_table(name, ["prompt", "completion", *columns])
    completion = rows["completion"].combine_chunks()
    turns = pc.struct_field(pc.list_flatten(completion), "content")
    response = turns if len(turns) == rows.num_rows else pa.array([""] * rows.num_rows, pa.string())
    pair = {"messages": rows["prompt"], "response": response}
    return pa.table(pair | {name: rows[name] for name in columns})
