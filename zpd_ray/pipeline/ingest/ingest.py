"""Ingest: source files -> checked, de-duplicated parts of the pool, and a quarantine. Nothing on the driver.

Two passes. The first reads every source file in a task of its own and stages good rows and quarantined ones.
The second deals staged rows by a hash of their content into parts of about ``items_per_part`` rows, drops
exact duplicates, measures lengths in tokens and writes each part in order of item id. Which row is in which
part, and in which order, depends on the rows alone. Few rows are dealt without a shuffle.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from zpd_ray import graders, schema
from zpd_ray.config import Config, ModelConfig, SourceConfig
from zpd_ray.engines import ENGINES, tokens
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster import parts
from zpd_ray.readers.duplicates import ID_USED_TWICE, clashing_ids, drop_duplicates, drop_overlap
from zpd_ray.readers.formats import read
from zpd_ray.readers.items import to_items
from zpd_ray.readers.rows import EXCERPT
from zpd_ray.readers.shapes import check_columns
from zpd_ray.readers.sources import SourceFile, expand, fingerprint
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import EVALUATION, POOL
from zpd_ray.rundir.store import Store
from zpd_ray.selection.keys import item_hash
from zpd_ray.terminal import progress, say

Read = Callable[[str], pa.Table]
Change = Callable[[pa.Table], pa.Table]

TOO_LONG = "too long for the model"
NOT_TOKENISED = "cannot be tokenised"
FEW_ROWS = 20_000  # that a task of the second pass reads whole, rather than wait for a shuffle


def ingest(run: Run) -> dict[str, Any]:
    """Pool and evaluation set of a run, both anew; returns pool.json.

    Evaluation items that are also in the pool (same prompt, case and white space aside) are dropped from the
    pool and counted.
    """
    config, store = run.config, run.store
    prompts = np.zeros(0, dtype=np.uint64)
    if config.evaluation is not None:
        ingest_source(config, store, config.evaluation, EVALUATION, prompts)
        prompts = np.array(store.read_json(f"{EVALUATION}.json")["prompt_keys"], dtype=np.uint64)
    ingest_source(config, store, config.pool, POOL, prompts)
    return dict(store.read_json(f"{POOL}.json"))


def ingest_source(
    config: Config, store: Store, source: SourceConfig, into: str, excluded_prompts: np.ndarray
) -> None:
    """Make the parts in directory ``into`` and the summary ``into``.json, which is written last.

    Raises ZpdError when nothing is left, or more than ``source.max_bad_share`` of the rows is bad.
    """
    staging = f"{into}.staging"
    for leftover in (staging, into, f"quarantine/{into}"):  # of an attempt that was killed or refused
        store.remove(leftover)
    staged = _stage_files(config, store, source, into, staging)
    _check(staged["rows"], staged["items"], staged["reasons"], source)
    dealt = _deal(config, store, into, staging, staged, excluded_prompts)
    store.remove(staging)
    summary = _summary(staged, dealt)
    _check(summary["rows"], summary["items"], summary["quarantined"], source)
    if into == EVALUATION:
        summary["prompt_keys"] = sorted(int(key) for part in dealt for key in part["prompt_keys"])
    for name in ("longest", "longest_prompt"):
        summary[name] = max((row[name] for row in dealt), default=0)
    store.write_json(f"{into}.json", summary)
    _tell(summary, into)


def _stage_files(
    config: Config, store: Store, source: SourceConfig, into: str, staging: str
) -> dict[str, Any]:
    """First pass: every file read in a task, its rows staged or quarantined; the sums over files."""
    files = expand(source.path, source.format)
    rows = [{"file": file, "index": index} for index, file in enumerate(files)]
    work = partial(_stage_file, config, store, source, into, staging)
    dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), parts.MAX_BLOCKS))
    total: dict[str, Any] = {"rows": 0, "items": 0, "own_ids": False, "reasons": Counter(), "sources": []}
    with progress(f"reading {into}", None) as advance:
        for row in dataset.flat_map(work).iter_rows():
            total["rows"] += row["rows"]
            total["items"] += row["items"]
            total["own_ids"] |= row["own_ids"]
            total["reasons"].update(json.loads(row["reasons"]))
            total["sources"] += json.loads(row["sources"])
            advance(row["rows"])
    total["sources"].sort(key=lambda source: source["path"])
    return total


def _stage_file(
    config: Config, store: Store, source: SourceConfig, into: str, staging: str, row: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Stage one file in batches; a row of counts for each, and one with the file's fingerprint."""
    file: SourceFile = row["file"]
    grader = graders.load(config.measure.grader)
    for number, batch in enumerate(read(file)):
        columns = dict.fromkeys(name for raw in batch for name in raw.value or ())
        if number == 0 and columns:
            check_columns(columns, source)
        items, bad = to_items(batch, file.path, source, grader)
        name = f"{row['index']:06d}-{number:06d}.parquet"
        store.write_table(f"{staging}/{name}", items)
        yield {
            "rows": len(batch),
            "items": items.num_rows,
            "own_ids": "item_id" in source.columns or "item_id" in columns,
            "reasons": _quarantine(store, f"{into}/read-{name}", bad),
            "sources": "[]",
        }
    done = {"rows": 0, "items": 0, "own_ids": False, "reasons": "{}"}
    yield done | {"sources": json.dumps([fingerprint(file)])}


def _deal(
    config: Config, store: Store, into: str, staging: str, staged: dict[str, Any], excluded: np.ndarray
) -> list[dict[str, Any]]:
    """Second pass: staged rows to parts; a row of counts per part."""
    count = -(-staged["items"] // config.pool.items_per_part)
    read = partial(_read_staged, store, staging, count)
    # Ids that users give may stand for two contents, seen only with all rows of an id in one place.
    resolve = partial(_resolve_ids, store, into) if staged["own_ids"] else None
    finish = partial(_finish_part, config, store, into, excluded)
    deal = _deal_few if staged["items"] <= FEW_ROWS else _deal_many
    dealt: list[dict[str, Any]] = []
    with progress(f"dealing {into}", staged["items"]) as advance:
        for row in deal(store.names(staging), count, read, resolve, finish).iter_rows():
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


def _deal_few(names: list[str], count: int, read: Read, resolve: Change | None, finish: Change) -> Dataset:
    """By tasks that read all rows and keep those of some buckets."""

    def each(buckets: pa.Table) -> Iterator[pa.Table]:
        rows = pa.concat_tables([read(name) for name in names])
        whole = clashing_ids(rows)[0] if resolve else rows
        for bucket in buckets["bucket"].to_pylist():
            of_ids = rows.filter(pc.equal(rows["id_bucket"], bucket))
            if resolve and of_ids.num_rows:
                resolve(of_ids)  # for its quarantine
            mine = whole.filter(pc.equal(whole["bucket"], bucket))
            if mine.num_rows:
                yield finish(mine)

    tasks = min(count, max(1, int(ray.cluster_resources().get("CPU", 1))))
    buckets = ray.data.from_items([{"bucket": i} for i in range(count)], override_num_blocks=tasks)
    return buckets.map_batches(each, batch_size=None, batch_format="pyarrow")


def _read_staged(store: Store, staging: str, count: int, name: str) -> pa.Table:
    table = store.read_table(f"{staging}/{name}")
    bucket = (table["content_hash"].to_numpy() % np.uint64(count)).astype(np.int64)
    id_bucket = (item_hash(table["item_id"], 0, 0, "deal") % np.uint64(count)).astype(np.int64)
    return table.append_column("bucket", pa.array(bucket)).append_column("id_bucket", pa.array(id_bucket))


def _resolve_ids(store: Store, into: str, rows: pa.Table) -> pa.Table:
    kept, bad = clashing_ids(rows)
    _quarantine(store, f"{into}/ids-{parts.part_name(rows['id_bucket'][0].as_py())}", bad)
    return kept


def _finish_part(config: Config, store: Store, into: str, excluded: np.ndarray, rows: pa.Table) -> pa.Table:
    """One bucket of staged rows: de-duplicated, without evaluation prompts, measured in tokens, written."""
    name = parts.part_name(rows["bucket"][0].as_py())
    items, duplicates = drop_duplicates(rows)
    items, overlap = drop_overlap(items, excluded)
    items, bad = _with_lengths(config, items)
    if items.num_rows:
        store.write_table(f"{into}/{name}", items.select(schema.ITEM.names).cast(schema.ITEM))
    counts = {
        "staged": rows.num_rows,
        "items": items.num_rows,
        "duplicates": duplicates,
        "overlap": overlap,
        "reasons": _quarantine(store, f"{into}/{name}", bad),
        "prompt_tokens": sum_of(items, "prompt_tokens"),
        "response_tokens": sum_of(items, "response_tokens"),
        "longest": _longest(pc.add(items["prompt_tokens"], items["response_tokens"])),
        "longest_prompt": _longest(items["prompt_tokens"]),
    }
    keys = items["prompt_key"].to_pylist() if into == EVALUATION else []
    row = pa.Table.from_pylist([counts])
    return row.append_column("prompt_keys", pa.array([keys], pa.list_(pa.uint64())))


def sum_of(table: pa.Table, column: str) -> int:
    """Sum of an integer column; 0 for no rows."""
    return int(table[column].to_numpy().sum())


def _longest(lengths: pa.ChunkedArray) -> int:
    return int(pc.max(lengths).as_py() or 0)


def _with_lengths(config: Config, items: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Items with their token columns, and those that the model cannot take."""
    prompt, response, problem = _lengths(config, items)
    items = items.append_column("prompt_tokens", pa.array(prompt, pa.int32()))
    items = items.append_column("response_tokens", pa.array(response, pa.int32()))
    reason = pa.array([why and why[0] for why in problem], pa.string())
    bad = pc.is_valid(reason)
    rejected = items.filter(bad)
    quarantine = {
        "source_file": rejected["source_file"],
        "source_row": rejected["source_row"],
        "reason": reason.filter(bad),
        "detail": pa.array([why[1] for why in problem if why], pa.string()),
        "content": pc.utf8_slice_codeunits(rejected["response"], 0, EXCERPT),
    }
    return items.filter(pc.invert(bad)), pa.table(quarantine, schema=schema.QUARANTINE)


def _lengths(config: Config, items: pa.Table) -> tuple[list[int], list[int], list[tuple[str, str] | None]]:
    """Tokens of prompt and response, and per item why the model cannot take it (reason, detail), or None."""
    if not ENGINES.load(config.engine.name).reads_text:  # words stand for tokens
        words = [len(text.split()) for text in items["response"].to_pylist()]
        return [1] * len(words), words, [None] * len(words)
    tokenizer, limit = _tokenizer(config.model)
    ids = tokens.encode(tokenizer, items["messages"], items["response"], config.model.separator)
    prompt, response = [len(row) for row in ids.prompt_ids], [len(row) for row in ids.response_ids]
    problem: list[tuple[str, str] | None] = []
    for error, total in zip(ids.error, map(sum, zip(prompt, response, strict=True)), strict=True):
        too_long = (TOO_LONG, f"{total} tokens, the model takes {limit}") if total > limit else None
        problem.append((NOT_TOKENISED, error) if error else too_long)
    return prompt, response, problem


@lru_cache(maxsize=1)
def _tokenizer(model: ModelConfig) -> tuple[Any, int]:
    tokenizer = tokens.load_tokenizer(model.path)
    return tokenizer, tokens.max_length(model, tokenizer)


def _quarantine(store: Store, name: str, bad: pa.Table) -> str:
    """Write bad rows, if any; their counts by reason as JSON."""
    if bad.num_rows:
        store.write_table(f"quarantine/{name}", bad)
    return json.dumps(Counter(bad["reason"].to_pylist()))


def _summary(staged: dict[str, Any], dealt: list[dict[str, Any]]) -> dict[str, Any]:
    """What became of the rows: rows = items + duplicates + overlap + all quarantined."""
    sums = {
        key: sum(row[key] for row in dealt)
        for key in ("items", "duplicates", "overlap", "prompt_tokens", "response_tokens")
    }
    reasons = staged["reasons"] + sum((Counter(json.loads(row["reasons"])) for row in dealt), Counter())
    return {
        "rows": staged["rows"],
        **sums,
        "quarantined": dict(sorted(reasons.items())),
        "sources": staged["sources"],
    }


def _check(rows: int, items: int, reasons: dict[str, int], source: SourceConfig) -> None:
    bad = sum(reasons.values())
    told = ", ".join(f"{count} x {reason}" for reason, count in sorted(reasons.items())) or "none is bad"
    if items == 0:
        raise ZpdError(
            f"nothing is left of the {rows} rows in {source.path} ({told}); expected at least one item: see "
            "quarantine/ in the run directory for each row's reason"
        )
    if bad > source.max_bad_share * rows:
        raise ZpdError(
            f"{bad} of {rows} rows in {source.path} are bad ({told}), more than max_bad_share = "
            f"{source.max_bad_share:g} allows; see quarantine/ in the run directory, mend the rows or the "
            "mapping of columns, or raise max_bad_share"
        )


def _tell(summary: dict[str, Any], into: str) -> None:
    bad = summary["quarantined"]
    told = ", ".join(f"{reason} {count}" for reason, count in bad.items()) or "none"
    say(
        f"{into}: {summary['rows']} rows -> {summary['items']} items, {summary['duplicates']} duplicates, "
        f"{summary['overlap']} also in the evaluation set; quarantined: {told}"
    )
