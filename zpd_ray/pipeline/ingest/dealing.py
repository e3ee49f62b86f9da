"""Second pass of ingest: staged rows -> parts, without duplicates, with lengths, in order of item id."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from zpd_ray import schema
from zpd_ray.pipeline.cluster import parts
from zpd_ray.pipeline.ingest.source import Source
from zpd_ray.readers.duplicates import ID_USED_TWICE, clashing_ids, drop_duplicates, drop_overlap
from zpd_ray.readers.lengths import longest_prompt, with_lengths
from zpd_ray.rundir.layout import EVALUATION
from zpd_ray.rundir.row_groups import rows_in_group
from zpd_ray.selection.keys import item_hash
from zpd_ray.terminal import progress

Read = Callable[[str], pa.Table]
Change = Callable[[pa.Table], pa.Table]

FEW_ROWS = 20_000  # that a task reads whole, rather than wait for a shuffle
# A task may hold so many bytes of rows; where that makes no more than so many tasks, each reads all that is
# staged and keeps its share. Reading takes .3 us a short row, a shuffle of Ray Data's takes several.
TASK_BYTES, MOST_READERS = 1 << 28, 16


def deal(source: Source, staged: dict[str, Any], excluded: np.ndarray) -> list[dict[str, Any]]:
    """Staged rows to parts; a row of counts per part.

    staged: what ``stage_files`` found; excluded: uint64, keys of prompts that may not be in the parts.
    """
    store = source.run.store
    count = -(-staged["items"] // source.run.config.pool.items_per_part)
    read = partial(_read_staged, source, count, staged["own_ids"])
    # Ids that users give may stand for two contents, seen only with all rows of an id in one place.
    resolve = partial(_resolve_ids, source) if staged["own_ids"] else None
    finish = partial(_finish_part, source, excluded)
    dealt: list[dict[str, Any]] = []
    with progress(f"dealing the {source.name} into parts", staged["items"]) as advance:
        names = store.names(source.staging)
        tasks = max(min(count, _cpus()), -(-staged["bytes"] // TASK_BYTES))
        if staged["items"] <= FEW_ROWS:
            rows = _deal_few(names, count, read, resolve, finish)
        elif tasks <= MOST_READERS:
            names = _resolve_some(names, count, tasks, read, source) if resolve else names
            rows = _deal_some(names, count, tasks, read, finish)
        else:
            rows = _deal_many(names, count, read, resolve, finish)
        for row in rows.iter_rows():
            dealt.append(row)
            advance(row["staged"])
    clashes = staged["items"] - sum(row["staged"] for row in dealt)
    staged["reasons"].update({ID_USED_TWICE: clashes} if clashes else {})
    return dealt


def _deal_many(names: list[str], count: int, read: Read, resolve: Change | None, finish: Change) -> Dataset:
    """By shuffles: no task holds more than a bucket or a staged file."""
    rows = parts.tables(names, read)
    if resolve:
        rows = rows.groupby("id_bucket", num_partitions=count).map_groups(resolve, batch_format="pyarrow")
    return rows.groupby("bucket", num_partitions=count).map_groups(finish, batch_format="pyarrow")


def _deal_some(names: list[str], count: int, tasks: int, read: Read, finish: Change) -> Dataset:
    """By tasks that read all rows, a file at a time, and keep those of some buckets."""

    def each(buckets: pa.Table) -> Iterator[pa.Table]:
        for _, rows in _shares(names, read, "bucket", buckets):
            yield finish(rows)

    return _buckets(count, tasks).map_batches(each, batch_size=None, batch_format="pyarrow")


def _resolve_some(names: list[str], count: int, tasks: int, read: Read, source: Source) -> list[str]:
    """The same for ids that users gave; names of the files with the rows that keep theirs."""

    def each(buckets: pa.Table) -> Iterator[pa.Table]:
        written = []
        for bucket, rows in _shares(names, read, "id_bucket", buckets):
            kept = _resolve_ids(source, rows)
            written.append(source.stage(f"ids-{bucket:06d}", kept.drop_columns(["bucket", "id_bucket"])))
        yield pa.table({"name": pa.array(written, pa.string())})

    dataset = _buckets(count, tasks).map_batches(each, batch_size=None, batch_format="pyarrow")
    return sorted(row["name"] for row in dataset.iter_rows())


def _shares(names: list[str], read: Read, key: str, buckets: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """The rows of each of these buckets that has some."""
    mine = buckets["bucket"].combine_chunks()

    def kept(name: str) -> pa.Table:
        rows = read(name)
        return rows.filter(pc.is_in(rows[key], value_set=mine))

    whole = pa.concat_tables(map(kept, names))
    for bucket in mine.to_pylist():
        rows = whole.filter(pc.equal(whole[key], bucket))
        if rows.num_rows:
            yield bucket, rows


def _buckets(count: int, tasks: int) -> Dataset:
    """A row for each bucket, over so many tasks."""
    rows = [{"bucket": bucket} for bucket in range(count)]
    return ray.data.from_items(rows, override_num_blocks=min(count, tasks))


def _cpus() -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _deal_few(names: list[str], count: int, read: Read, resolve: Change | None, finish: Change) -> Dataset:
    """By tasks that read all rows and keep those of some buckets."""

    def each(buckets: pa.Table) -> Iterator[pa.Table]:
        rows = pa.concat_tables([read(name) for name in names])
        whole = clashing_ids(rows)[0] if resolve else rows
        for bucket in buckets["bucket"].to_pylist():
            if resolve and (of_ids := rows.filter(pc.equal(rows["id_bucket"], bucket))).num_rows:
                resolve(of_ids)  # for its quarantine
            mine = whole.filter(pc.equal(whole["bucket"], bucket))
            if mine.num_rows:
                yield finish(mine)

    return _buckets(count, _cpus()).map_batches(each, batch_size=None, batch_format="pyarrow")


def _read_staged(source: Source, count: int, own_ids: bool, name: str) -> pa.Table:
    table = source.staged(name)
    bucket = (table["content_hash"].to_numpy() % np.uint64(count)).astype(np.int64)
    table = table.append_column("bucket", pa.array(bucket))
    if not own_ids:
        return table
    id_bucket = (item_hash(table["item_id"], 0, 0, "deal") % np.uint64(count)).astype(np.int64)
    return table.append_column("id_bucket", pa.array(id_bucket))


def _resolve_ids(source: Source, rows: pa.Table) -> pa.Table:
    kept, bad = clashing_ids(rows)
    source.quarantine(f"ids-{parts.part_name(rows['id_bucket'][0].as_py())}", bad)
    return kept


def _finish_part(source: Source, excluded: np.ndarray, rows: pa.Table) -> pa.Table:
    """One bucket of staged rows: de-duplicated, without evaluation prompts, measured in tokens, written."""
    name = parts.part_name(rows["bucket"][0].as_py())
    items, duplicates = drop_duplicates(rows)
    items, overlap = drop_overlap(items, excluded)
    items, bad = with_lengths(source.run.config, items)
    tokens = {name: sum_of(items, name) for name in ("prompt_tokens", "response_tokens")}
    if items.num_rows:
        group_rows = rows_in_group(items.num_rows, sum(tokens.values()))
        part = items.select(schema.ITEM.names).cast(schema.ITEM)
        source.run.store.write_table(f"{source.into}/{name}", part, group_rows)
    counts = {
        "staged": rows.num_rows,
        "items": items.num_rows,
        "duplicates": duplicates,
        "overlap": overlap,
        "reasons": source.quarantine(name, bad),
        "with_more": with_more(items),
        **tokens,
        "longest": _longest(pc.add(items["prompt_tokens"], items["response_tokens"])),
        "longest_prompt": longest_prompt(source.run.config, items),
        "shortest_response": int(pc.min(items["response_tokens"]).as_py() or 0),
    }
    keys = items["prompt_key"].to_pylist() if source.into == EVALUATION else []
    row = pa.Table.from_pylist([counts])
    return row.append_column("prompt_keys", pa.array([keys], pa.list_(pa.uint64())))


def with_more(items: pa.Table) -> int:
    """Items that define tools, or of which a turn holds more than role and content."""
    found = pc.or_(pc.is_valid(items["tools"]), pc.is_valid(items["response_more"])).to_numpy()
    messages = items["messages"].combine_chunks()
    more = pc.is_valid(pc.struct_field(messages.flatten(), "more"))
    found[pc.list_parent_indices(messages).filter(more).to_numpy()] = True
    return int(found.sum())


def sum_of(table: pa.Table, column: str) -> int:
    """Sum of an integer column; 0 for no rows."""
    return int(table[column].to_numpy().sum())


def _longest(lengths: pa.ChunkedArray) -> int:
    return int(pc.max(lengths).as_py() or 0)
