"""Items by their places in the pool: a selection says where they lie, and they are read when they are due."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zpd_ray import schema
from zpd_ray.errors import ZpdError
from zpd_ray.rundir.judging import last_measured
from zpd_ray.rundir.layout import ANSWERS, POOL, StageFiles
from zpd_ray.rundir.run import Run

Rows = NDArray[np.int64]

# Of what is read at a time: some 16 MB of text, however long texts are.
TOKENS_AT_ONCE = 1 << 22
# Parts that are read from at a time on an object store, where a request is waited for. On a disk reading is
# decoding, and a task of Ray's has one CPU.
READERS = 16


def pieces(places: pa.Table) -> Iterator[pa.Table]:
    """The same rows in their order, of some ``TOKENS_AT_ONCE`` tokens each; none where there are no rows."""
    sizes = (places[name].to_numpy() for name in ("prompt_tokens", "response_tokens"))
    tokens = np.add(*sizes, dtype=np.int64)
    piece = np.cumsum(tokens) // TOKENS_AT_ONCE
    starts = np.flatnonzero(np.diff(piece, prepend=-1))
    for start, end in pairwise([*starts, len(tokens)]):
        yield places.slice(start, end - start)


def items_at(run: Run, stage: int, places: pa.Table, columns: list[str]) -> pa.Table:
    """Columns of ``schema.ITEM`` of the items at n places, in their order: each as ``stage`` trains on it.

    places: columns part, row, own of ``schema.PLACE``; where ``own`` is true, the model's own response takes
    the place of the reference. Every part is opened once, and only row groups are read that hold some.
    """
    parts = pc.unique(places["part"]).to_pylist()
    number = pc.index_in(places["part"], pa.array(parts, pa.string())).to_numpy()
    row, own = (places[name].to_numpy() for name in ("row", "own"))
    order = np.argsort(number, kind="stable")
    ends = np.searchsorted(number[order], np.arange(len(parts)), side="right")

    def of_part(at: int) -> pa.Table:
        mine = order[ends[at - 1] if at else 0 : ends[at]]
        return _of_part(run, stage, parts[at], row[mine], own[mine], columns)

    none = schema.ITEM.empty_table().select(columns)
    found = pa.concat_tables([none, *_each(run, of_part, len(parts))])
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return found.take(back)


def _each(run: Run, of_part: Callable[[int], pa.Table], count: int) -> list[pa.Table]:
    if run.store.is_local or count < 2:
        return list(map(of_part, range(count)))
    pa.set_io_thread_count(max(READERS, pa.io_thread_count()))  # else arrow's own 8 would do the reading
    with ThreadPoolExecutor(min(READERS, count)) as readers:
        return list(readers.map(of_part, range(count)))


def _of_part(
    run: Run, stage: int, part: str, rows: Rows, own: NDArray[np.bool_], columns: list[str]
) -> pa.Table:
    items = _read(run, f"{POOL}/{part}", rows, columns)
    if not own.any():
        return items
    said = _own(run, stage, part, rows[own]).take(pa.array(np.cumsum(own) - 1, mask=~own))
    theirs = {"response": pc.coalesce(said, items["response"])} if "response" in columns else {}
    if "response_more" in columns:
        theirs["response_more"] = pc.if_else(
            pa.array(own), pa.scalar(None, pa.string()), items["response_more"]
        )
    for name, values in theirs.items():
        items = items.set_column(columns.index(name), items.schema.field(name), values)
    return items


def _read(run: Run, name: str, rows: Rows, columns: list[str]) -> pa.Table:
    path = f"{run.store.root}/{name}"
    try:
        return run.store.read_rows(name, rows, columns)
    except FileNotFoundError:
        raise ZpdError(
            f"{path} is missing, and texts of a selection lie in it; expected every file of the run where it "
            "was written, until the last stage is trained: put it back, and run again"
        ) from None
    except (OSError, pa.ArrowInvalid) as problem:
        raise OSError(f"cannot read {path}: {problem}") from problem


def _own(run: Run, stage: int, part: str, rows: Rows) -> pa.ChunkedArray:
    """The model's own responses to rows of a part, as they were kept when each was last measured: (n,)."""
    last = np.full(len(rows), stage)
    if run.in_rounds(stage):
        last = last_measured(run, stage, ANSWERS, part, ["own_tokens"]).stage[rows]
    found, order = [], []
    for earlier in np.unique(last).tolist():
        mine = np.flatnonzero(last == earlier)
        name, at = f"{StageFiles(earlier).measurements()}/{part}", rows[mine]
        if run.in_rounds(earlier):  # the file has some rows of the part, in order
            at = np.searchsorted(run.store.read_table(name, ["row"])["row"].to_numpy(), at)
        found.append(_read(run, name, at, ["own"]))
        order.append(mine)
    return pa.concat_tables(found).take(np.argsort(np.concatenate(order)))["own"]
