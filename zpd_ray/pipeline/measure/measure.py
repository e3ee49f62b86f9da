"""Measure a set of parts with a model: Ray Data over scoring actors, one finished file per part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from zpd_ray import measures
from zpd_ray.at_work import at_work
from zpd_ray.config import MeasureConfig
from zpd_ray.engines.base import ModelRef
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster import parts
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.pipeline.measure.dispatch import dispatch
from zpd_ray.pipeline.measure.scorer import Request
from zpd_ray.pipeline.measure.scorers import Scorers
from zpd_ray.pipeline.measure.ticks import Ticks
from zpd_ray.rundir.layout import ANSWERS, MANIFEST, MEASURE, POOL, StageFiles, in_words
from zpd_ray.rundir.records import add_event
from zpd_ray.rundir.store import Store
from zpd_ray.terminal import progress, warn


def measure_pool(session: Session, stage: int) -> dict[str, Any]:
    """Everything that the run needs to know of the pool at a stage; the totals of ``answers``.

    Writes stages/NN/measurements/MEASURE/ and, last, measured.json: totals by measure.
    """
    run, files = session.run, StageFiles(stage)
    stage_model = run.model(stage - run.staleness(stage))
    totals = {}
    for name in run.measures:
        model = measures.load(name, run.config).model(stage_model)
        totals[name] = measure(session, name, model, POOL, files.measurements(name))
    run.store.write_json(files.closing(MEASURE), totals)
    return totals[ANSWERS]


def measure(
    session: Session, name: str, model: ModelRef, items: str, into: str, rollouts: int | None = None
) -> dict[str, Any]:
    """Take the measure ``name`` of every part of directory ``items`` that has no file in ``into`` yet.

    rollouts: in place of the config's. Returns totals over all parts, those of earlier attempts included:
    items, failed, and what ``measures.count`` counts. Raises ZpdError when more than
    ``measure.max_failed_share`` of the items failed.
    """
    store, how = session.run.store, session.run.config.measure
    if rollouts is not None:
        how = how.model_copy(update={"rollouts": rollouts})
    names, finished = store.names(items), set(store.names(into))
    done = [f"{into}/{part}" for part in names if part in finished]
    pending = [part for part in names if part not in finished]
    total = store.read_json(f"{items}.json")["items"]
    counts: Counter[str] = Counter()
    with progress(f"measuring {in_words(into)}", total) as advance:

        def add(row: dict[str, Any]) -> None:
            counts.update({key: row[key] for key in row.keys() - {*examples, "scorer"}})
            examples.update({key: row[key] or example for key, example in examples.items()})
            ticks.finish(row["items"])

        examples, ticks = {"example": "", "unparsed_example": ""}, Ticks(advance, total)
        for row in parts.results(done, partial(_counts_of, store)):
            add(row)
        at_work.count_from_here()
        _check(name, counts, total, how, examples)
        for row in _score(session, Request(session.run, name, how, model, items, into), pending, ticks):
            add(row)
            _check(name, counts, total, how, examples)
    if counts["unparsed"] > measures.UNPARSED_TOLD * max(1, counts["responses"]):
        told = _no_answer(name, counts["unparsed"], counts["responses"], examples)
        warn(f"measuring {in_words(into)}: {told}")
    return {key: counts[key] for key in sorted(counts)}


def _score(session: Session, request: Request, pending: list[str], ticks: Ticks) -> Iterator[dict[str, Any]]:
    """Counts of each pending part as it is finished; at the end an event tells what the scorers did."""
    if not pending:
        return
    pool = session.scorers(request.model)
    last: dict[int, float] = {}
    config = session.run.config.model_copy(update={"measure": request.how})
    with ticks.watching(pool, measures.load(request.measure, config).passes):
        for row in dispatch(pool, pending, request):
            last[row["scorer"]] = row.pop("at")
            yield row
    _record_usage(session.run.store, pool, request, last)


def _record_usage(store: Store, pool: Scorers, request: Request, last: dict[int, float]) -> None:
    """An event with each scorer's work and the seconds it idled at the end; the engine's settings once."""
    end = max(last.values())
    rows = [
        {name: round(value, 4) for name, value in usage.items()} | {"idle_at_end": round(end - last[i], 3)}
        for i, usage in sorted(pool.ask("usage", last).items())
    ]
    add_event(store, "scored", request.model.stage, into=request.into, scorers=rows)
    if store.exists(MANIFEST):
        manifest = store.read_json(MANIFEST)
        settings = next(filter(None, pool.ask("settings", last).values()), None)
        if settings and "engine" not in manifest:
            store.write_json(MANIFEST, manifest | {"engine": settings})


def _counts_of(store: Store, name: str) -> dict[str, Any]:
    return measures.count(store.read_table(name))


def _check(
    name: str, counts: Counter[str], total: int, measure: MeasureConfig, examples: dict[str, str]
) -> None:
    """Raises ZpdError as soon as it is certain that too many of ``total`` items fail, or are not answered."""
    failed, unparsed = counts["failed"], counts["unparsed"]
    asked = total * (measure.rollouts if name == ANSWERS else 1)
    if failed > measure.max_failed_share * total:
        raise ZpdError(
            f"{failed} of {total} items could not be measured, more than measure.max_failed_share = "
            f"{measure.max_failed_share:g} allows; one said: {examples['example']}; mend the cause (or raise "
            "the share) and run again: parts that are done are kept"
        )
    if unparsed > measure.max_unparsed_share * asked:
        raise ZpdError(
            f"{_no_answer(name, unparsed, asked, examples)}; that is more than measure.max_unparsed_share = "
            f"{measure.max_unparsed_share:g} allows, and says nothing about the model: raise "
            f"measure.max_new_tokens (now {measure.max_new_tokens}) or take {_reader(name, measure)} "
            "that finds what the prompt asks for, in a new output, or raise the share in this one"
        )


def _reader(name: str, measure: MeasureConfig) -> str:
    return f"a grader (now {measure.grader})" if name == ANSWERS else f"a prompt or model of the {name}"


def _no_answer(name: str, unparsed: int, asked: int, examples: dict[str, str]) -> str:
    found = "the grader found no answer" if name == ANSWERS else f"the {name} gave no number"
    return f"{found} in {unparsed} of {asked} responses; one began: {examples['unparsed_example']!r}"
