"""Measure a set of parts with a model: Ray Data over scoring actors, one finished file per part."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from zpd_ray.config import Config, MeasureConfig
from zpd_ray.engines import ModelRef
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster import parts
from zpd_ray.pipeline.measure.dispatch import dispatch
from zpd_ray.pipeline.measure.part import COUNTED, count
from zpd_ray.pipeline.measure.scorers import Scorers, scorers
from zpd_ray.rundir.store import Store
from zpd_ray.terminal import progress


def measure(
    config: Config, store: Store, model: ModelRef, items: str, into: str, rollouts: int | None = None
) -> dict[str, Any]:
    """Measure every part of directory ``items`` that has no file in directory ``into`` yet.

    rollouts: in place of the config's. Returns totals over all parts, those of earlier attempts included:
    items, failed, tokens, responses, right, unparsed. Raises ZpdError when more than
    ``measure.max_failed_share`` of the items failed.
    """
    names = store.names(items)
    finished = set(store.names(into))
    done = [f"{into}/{name}" for name in names if name in finished]
    pending = [name for name in names if name not in finished]
    total = store.read_json(f"{items}.json")["items"]
    counts: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
    example = ""
    with progress(f"measuring {into}", total) as advance:
        for row in parts.results(done, partial(_counts_of, store)):
            counts.update({key: row[key] for key in COUNTED})
            example = row["example"] or example
            advance(row["items"])
        _check_failures(counts["failed"], total, config.measure, example)
        for row in _score(config, store, model, items, into, rollouts, pending):
            counts.update({key: row[key] for key in COUNTED})
            example = row["example"] or example
            advance(row["items"])
            _check_failures(counts["failed"], total, config.measure, example)
    return dict(counts)


def _score(
    config: Config,
    store: Store,
    model: ModelRef,
    items: str,
    into: str,
    rollouts: int | None,
    pending: list[str],
) -> Iterator[dict[str, Any]]:
    """Counts of each pending part as it is finished; at the end an event tells what the scorers did."""
    if not pending:
        return
    pool = scorers(config, store)
    how = config.measure.model_copy(update={} if rollouts is None else {"rollouts": rollouts})
    last: dict[int, float] = {}
    for row in dispatch(pool, pending, how, model, items, into):
        last[row["scorer"]] = time.time()
        yield row
    _record_usage(store, pool, model, into, last)


def _record_usage(store: Store, pool: Scorers, model: ModelRef, into: str, last: dict[int, float]) -> None:
    """An event with each scorer's work and the seconds it idled at the end; the engine's settings once."""
    end = max(last.values())
    rows = [
        {name: round(value, 4) for name, value in usage.items()} | {"idle_at_end": round(end - last[i], 3)}
        for i, usage in sorted(pool.ask("usage", last).items())
    ]
    store.append_event(
        {"at": time.time(), "step": "scored", "stage": model.stage, "into": into, "scorers": rows}
    )
    if store.exists("manifest.json"):
        manifest = store.read_json("manifest.json")
        settings = next(filter(None, pool.ask("settings", last).values()), None)
        if settings and "engine" not in manifest:
            store.write_json("manifest.json", manifest | {"engine": settings})


def _counts_of(store: Store, name: str) -> dict[str, Any]:
    return count(store.read_table(name))


def _check_failures(failed: int, total: int, measure: MeasureConfig, example: str) -> None:
    """``example``: the latest error."""
    if failed > measure.max_failed_share * total:
        raise ZpdError(
            f"{failed} of {total} items could not be measured, more than measure.max_failed_share = "
            f"{measure.max_failed_share:g} allows; one said: {example}; mend the cause (or raise the share) "
            "and run again: parts that are done are kept"
        )
