"""Ingest: source files -> checked, de-duplicated parts of the pool, and a quarantine. Nothing on the driver.

Two passes. The first reads every source file in a task of its own and stages good rows and quarantined ones.
The second deals staged rows by a hash of their content into parts of about ``items_per_part`` rows, drops
exact duplicates, measures lengths in tokens and writes each part in order of item id. Which row is in which
part, and in which order, depends on the rows alone. Few rows are dealt without a shuffle.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow.compute as pc

from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.ingest.dealing import deal
from zpd_ray.pipeline.ingest.reading import stage_files
from zpd_ray.pipeline.ingest.source import Source
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import EVALUATION, POOL
from zpd_ray.terminal import say


def ingest(run: Run) -> dict[str, Any]:
    """Pool and evaluation set of a run, both anew; returns pool.json.

    Evaluation items that are also in the pool (same prompt, case and white space aside) are dropped from the
    pool and counted.
    """
    prompts = np.zeros(0, dtype=np.uint64)
    if run.config.evaluation is not None:
        summary = ingest_source(Source(run, run.config.evaluation, EVALUATION), prompts)
        prompts = np.array(summary["prompt_keys"], dtype=np.uint64)
    return ingest_source(Source(run, run.config.pool, POOL), prompts)


def ingest_source(source: Source, excluded_prompts: np.ndarray) -> dict[str, Any]:
    """Make the parts of a source, and the summary beside them, which is written last and returned.

    excluded_prompts: uint64, keys of prompts that are dropped. Raises ZpdError when nothing is left, or more
    than ``max_bad_share`` of the rows is bad.
    """
    store, into = source.run.store, source.into
    for leftover in (source.staging, into, f"quarantine/{into}"):  # of an attempt that was killed or refused
        store.remove(leftover)
    staged = stage_files(source)
    _check_damage(staged, source)
    _check(staged["rows"], staged["items"], staged["reasons"], source)
    dealt = deal(source, staged, excluded_prompts)
    store.remove(source.staging)
    summary = _summary(staged, dealt)
    _check_overlap(summary, source)
    _check(summary["rows"], summary["items"], summary["quarantined"], source)
    if into == EVALUATION:
        summary["prompt_keys"] = sorted(int(key) for part in dealt for key in part["prompt_keys"])
    for name in ("longest", "longest_prompt"):
        summary[name] = max((row[name] for row in dealt), default=0)
    summary["shortest_response"] = min((row["shortest_response"] for row in dealt if row["items"]), default=0)
    store.write_json(f"{into}.json", summary)
    _tell(summary, source.name)
    return summary


def _check_damage(staged: dict[str, Any], source: Source) -> None:
    damaged = sorted(staged["damaged"])
    if damaged and not source.section.allow_damaged:
        raise ZpdError(
            f"{damaged[0]} is damaged: it ends in the middle or is corrupt"
            + (f", and so are {len(damaged) - 1} more files" if len(damaged) > 1 else "")
            + f"; quarantine/{source.into} says where. Fetch it again, or set {source.key}.allow_damaged = "
            "true to take the rows before the damage"
        )


def _check_overlap(summary: dict[str, Any], source: Source) -> None:
    if summary["items"] == 0 and summary["overlap"]:
        raise ZpdError(
            f"nothing is left of the {summary['rows']} rows in {source.section.path}: {summary['overlap']} "
            "have prompts that the evaluation set has, too, which no model may be trained on; give an "
            "evaluation set with other prompts, or none"
        )


def _summary(staged: dict[str, Any], dealt: list[dict[str, Any]]) -> dict[str, Any]:
    """What became of the rows: rows = items + duplicates + overlap + all quarantined."""
    sums = {
        key: sum(row[key] for row in dealt)
        for key in ("items", "duplicates", "overlap", "with_more", "prompt_tokens", "response_tokens")
    }
    reasons = staged["reasons"] + sum((Counter(json.loads(row["reasons"])) for row in dealt), Counter())
    return {
        "rows": staged["rows"],
        **sums,
        "quarantined": dict(sorted(reasons.items())),
        "sources": staged["sources"],
    }


def _check(rows: int, items: int, reasons: dict[str, int], source: Source) -> None:
    bad, section = sum(reasons.values()), source.section
    told = ", ".join(f"{count} x {reason}" for reason, count in sorted(reasons.items())) or "none is bad"
    if rows == 0:
        raise ZpdError(f"{section.path} holds no rows; expected at least one")
    if items == 0:
        raise ZpdError(
            f"nothing is left of the {rows} rows in {section.path} ({told}){_example(reasons, source)}; "
            "expected at least one item: see quarantine/ in the run directory for each row's reason"
        )
    if bad > section.max_bad_share * rows:
        raise ZpdError(
            f"{bad} of {rows} rows in {section.path} are bad ({told}), more than max_bad_share = "
            f"{section.max_bad_share:g} allows{_example(reasons, source)}; see quarantine/ in the run "
            "directory, mend the rows or the mapping of columns, or raise max_bad_share"
        )


def _example(reasons: dict[str, int], source: Source) -> str:
    """Place and detail of a row that is bad for the commonest reason; one quarantine file at a time."""
    store, directory = source.run.store, f"quarantine/{source.into}"
    commonest = max(sorted(reasons), key=reasons.__getitem__, default=None)
    for name in store.names(directory) if commonest else []:
        bad = store.read_table(f"{directory}/{name}", ["source_file", "source_row", "reason", "detail"])
        found = bad.filter(pc.field("reason") == commonest)
        if found.num_rows:
            row = found.slice(0, 1).to_pylist()[0]
            return (
                f"; for example row {row['source_row']} of {row['source_file']}, {commonest}: {row['detail']}"
            )
    return ""


def _tell(summary: dict[str, Any], name: str) -> None:
    bad = summary["quarantined"]
    told = ", ".join(f"{reason} {count}" for reason, count in bad.items()) or "none"
    say(
        f"{name}: {summary['rows']} rows -> {summary['items']} items, {summary['duplicates']} duplicates, "
        f"{summary['overlap']} also in the evaluation set; quarantined: {told}"
    )
