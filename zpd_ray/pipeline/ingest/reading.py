"""First pass of ingest: source files -> staged rows, and a quarantine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import ray

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
from zpd_ray.terminal import progress

HEAD = 5000  # rows of a file that have to show every column the config maps


def stage_files(source: Source) -> dict[str, Any]:
    """Every file read in a task, its rows staged or quarantined; the sums over files.

    rows, items; bytes: of the items in memory; own_ids: whether users gave ids; reasons: of quarantined rows,
    counted; damaged: files that end in the middle or are corrupt; sources: a fingerprint of each file.
    """
    files = expand(source.section.path, source.section.format)
    rows = [{"file": file, "index": index} for index, file in enumerate(files)]
    work = partial(stage_file, source)
    dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), parts.MAX_BLOCKS))
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


def stage_file(source: Source, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Stage one file in blocks; a row of counts for each, and one with the file's fingerprint."""
    file: SourceFile = row["file"]
    section = source.section
    grader = graders.load(source.run.config.measure.grader)
    columns: dict[str, None] = {}
    unchecked, seen = True, 0
    for number, block in enumerate(blocks(file)):
        found = find_items(block, file.path, section, grader)
        columns |= dict.fromkeys(found.names)
        seen += len(block.numbers)
        if unchecked and seen >= HEAD:
            _check_columns(columns, section)
            unchecked = False
        name = f"{row['index']:06d}-{number:06d}"
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
    done = {"rows": 0, "items": 0, "bytes": 0, "own_ids": False, "reasons": "{}", "file": file.path}
    yield done | {"sources": json.dumps([fingerprint(file)])}


def _check_columns(columns: dict[str, None], section: SourceConfig) -> None:
    if columns:
        check_columns(columns, section)
