"""First pass of ingest: source files -> staged rows, and a quarantine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import ray
from ray.data import Dataset

from zpd_ray import graders
from zpd_ray.config import SourceConfig
from zpd_ray.pipeline.cluster import parts
from zpd_ray.pipeline.ingest.source import Source
from zpd_ray.readers.blocks import blocks
from zpd_ray.readers.columns import check_columns
from zpd_ray.readers.fingerprints import fingerprint
from zpd_ray.readers.found import find_items
from zpd_ray.readers.rows import DAMAGED
from zpd_ray.readers.sources import SourceFile, expand
from zpd_ray.readers.spans import Span, newlines_in, numbered, spans_of
from zpd_ray.terminal import progress

HEAD = 5000  # rows of a file that have to show every column the config maps


def stage_files(source: Source) -> dict[str, Any]:
    """Every file read in a task, or each span of a large one; its rows staged or quarantined; the sums.

    rows, items; bytes: of the items in memory; own_ids: whether users gave ids; reasons: of quarantined rows,
    counted; damaged: files that end in the middle or are corrupt; sources: a fingerprint of each file.
    """
    rows = tasks_of(expand(source.section.path, source.section.format))
    work = partial(stage_file, source)
    dataset = _dataset(rows)
    total: dict[str, Any] = {"rows": 0, "items": 0, "bytes": 0, "own_ids": False, "reasons": Counter()}
    total |= {"damaged": [], "sources": []}
    with progress(f"reading the {source.name}", None) as advance:
        for row in dataset.flat_map(work).iter_rows():
            for name in ("rows", "items", "bytes"):
                total[name] += row[name]
            total["own_ids"] |= row["own_ids"]
            reasons = json.loads(row["reasons"])
            total["reasons"].update(reasons)
            total["damaged"] += [row["file"]] * bool(reasons.get(DAMAGED))
            total["sources"] += json.loads(row["sources"])
            advance(row["rows"])
    total["sources"].sort(key=lambda file: file["path"])
    return total


def _dataset(rows: list[dict[str, Any]]) -> Dataset:
    return ray.data.from_items(rows, override_num_blocks=min(len(rows), parts.MAX_BLOCKS))


def tasks_of(files: list[SourceFile]) -> list[dict[str, Any]]:
    """What is read at a time, with a name; the fingerprint of a file in several spans is taken by itself."""
    total = sum(file.size for file in files)
    split = {file: spans_of(file, total) for file in files}
    split |= _numbered(
        {file: spans for file, spans in split.items() if len(spans) > 1 and file.format == "jsonl"}
    )
    rows: list[dict[str, Any]] = []
    for index, (file, spans) in enumerate(split.items()):
        name, whole = f"{index:06d}", len(spans) == 1
        if not whole:
            rows.append({"file": file, "name": name, "span": None, "fingerprint": True})
        for number, span in enumerate(spans):
            told = name if whole else f"{name}-{number:06d}"
            rows.append({"file": file, "name": told, "span": span, "fingerprint": whole})
    return rows


def _numbered(split: dict[SourceFile, list[Span]]) -> dict[SourceFile, list[Span]]:
    """The same with the lines of each span counted, in tasks: their places in the file have to be known."""
    rows = [
        {"file": file, "span": span, "number": number}
        for file, spans in split.items()
        for number, span in enumerate(spans)
    ]
    if not rows:
        return {}

    def count(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "path": row["file"].path,
            "number": row["number"],
            "newlines": newlines_in(row["file"], row["span"]),
        }

    counted = {(row["path"], row["number"]): row["newlines"] for row in _dataset(rows).map(count).iter_rows()}
    return {
        file: numbered(spans, [counted[file.path, number] for number in range(len(spans))])
        for file, spans in split.items()
    }


def stage_file(source: Source, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Stage one file, or a span of it, in blocks; a row of counts for each, and the file's fingerprint."""
    file: SourceFile = row["file"]
    if row["span"] is not None:
        yield from _stage_span(source, file, row["name"], row["span"])
    if row["fingerprint"]:
        yield {name: 0 for name in ("rows", "items", "bytes")} | {
            "own_ids": False,
            "reasons": "{}",
            "sources": json.dumps([fingerprint(file)]),
            "file": file.path,
        }


def _stage_span(source: Source, file: SourceFile, prefix: str, span: Span) -> Iterator[dict[str, Any]]:
    section = source.section
    grader = graders.load(source.run.config.measure.grader)
    columns: dict[str, None] = {}
    unchecked, seen = span.start == 0, 0
    for number, block in enumerate(blocks(file, span=span)):
        found = find_items(block, file.path, section, grader)
        columns |= dict.fromkeys(found.names)
        seen += len(block.numbers)
        if unchecked and seen >= HEAD:
            _check_columns(columns, section)
            unchecked = False
        name = f"{prefix}-{number:06d}"
        if found.items.num_rows:
            source.stage(name, found.items)
        yield {
            "rows": len(block.numbers),
            "items": found.items.num_rows,
            "bytes": found.items.nbytes,
            "own_ids": "item_id" in section.columns or "item_id" in map(str.casefold, found.names),
            "reasons": source.quarantine(f"read-{name}.parquet", found.bad),
            "sources": "[]",
            "file": file.path,
        }
    if unchecked:
        _check_columns(columns, section)


def _check_columns(columns: dict[str, None], section: SourceConfig) -> None:
    if columns:
        check_columns(columns, section)
