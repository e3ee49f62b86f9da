"""Items whose references may be wrong, the most suspect first: parts are read one at a time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from zpd_ray.calibration import Fit
from zpd_ray.errors import ZpdError
from zpd_ray.report.evidence import Evidence, Floats, evidence, usual
from zpd_ray.report.find import Found
from zpd_ray.report.why import item_of
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import FIT, POOL
from zpd_ray.rundir.records import load_fit

Kept = tuple[float, str, int, dict[str, Any]]  # minus the score, part, row, numbers


@dataclass(frozen=True)
class Suspect:
    """An item with its evidence. why: in words; the numbers are those of ``Evidence``."""

    item: dict[str, Any]
    score: float
    asked: int
    right: int
    expected: float
    unexpected: float
    sure: float
    agreed: float
    per_missed: float
    given: int
    of: int
    answer: str | None
    why: str


@dataclass(frozen=True)
class Suspects:
    """The best of those that have a score. stages: that are looked at; items: of the pool, or the group."""

    run: str
    stages: int
    items: int
    scored: int
    rows: list[Suspect]


def suspects(run: Run, top: int, group: str | None = None, parts: list[str] | None = None) -> Suspects:
    """The ``top`` items of the highest score, ties by part and row; parts are read one at a time.

    parts: of the pool, to look at; None: all. Raises ZpdError when nothing is fitted yet, there is no such
    group, or the pool has no references.
    """
    if run.config.prompts_alone:
        raise ZpdError(
            f"the items of {run.store.root} are prompts alone (pool.reference = 'prompt'), and have no "
            "references that could be wrong; `zpd-ray show` lists what was selected, `zpd-ray why` explains "
            "an item"
        )
    fits, kept, items, scored = _fits(run), list[Kept](), 0, 0
    parts = run.store.names(POOL) if parts is None else parts
    common = usual(run, fits, parts)
    for part in parts:
        found, within = evidence(run, fits, part, common), _within(run, part, group)
        score = np.where(within, found.score, -np.inf)
        items, scored = items + int(within.sum()), scored + int(np.isfinite(score).sum())
        kept = heapq.nsmallest(top, [*kept, *_best(found, score, part, top)], key=lambda each: each[:3])
    if group is not None and items == 0:
        raise ZpdError(
            f"no item of the pool has the group {group!r}; `zpd-ray show {run.store.root}` lists groups"
        )
    return Suspects(run.store.root, len(fits), items, scored, [_suspect(run, common, *each) for each in kept])


def _best(found: Evidence, score: Floats, part: str, top: int) -> Iterator[Kept]:
    for row in np.argsort(-score, kind="stable")[:top].tolist():
        if np.isfinite(score[row]):
            yield -float(score[row]), part, row, _numbers(found, row)


def _fits(run: Run) -> list[Fit]:
    fitted = [stage for stage in range(run.config.stages) if run.finished(stage, FIT)]
    if not fitted:
        raise ZpdError(
            f"the run in {run.store.root} has no finished fit yet, so nothing is known of its items; take it "
            "on with `zpd-ray fit` or `zpd-ray run`"
        )
    return [load_fit(run.store, stage) for stage in fitted]


def _within(run: Run, part: str, group: str | None) -> NDArray[np.bool_]:
    column = run.store.read_table(f"{POOL}/{part}", ["group"])["group"]
    if group is None:
        return np.ones(len(column), dtype=bool)
    return np.asarray(pc.fill_null(pc.equal(column, group), False).to_numpy())


def _numbers(found: Evidence, row: int) -> dict[str, Any]:
    counts = {name: int(getattr(found, name)[row]) for name in ("asked", "right", "given", "of")}
    nats = {
        name: float(getattr(found, name)[row])
        for name in ("expected", "unexpected", "sure", "agreed", "per_missed")
    }
    return counts | nats | {"answer": found.answer[row].as_py()}


def _suspect(
    run: Run, common: float, minus_score: float, part: str, row: int, numbers: dict[str, Any]
) -> Suspect:
    item = item_of(run, Found(part, row))
    return Suspect(item=item, score=-minus_score, **numbers, why=_in_words(numbers, common))


def _in_words(of: dict[str, Any], common: float) -> str:
    told = (
        f"wrong {of['asked'] - of['right']} of {of['asked']} where {of['expected']:.1f} right were expected"
    )
    if of["given"] > 1:
        told += f"; {of['given']} of {of['of']} responses answer {of['answer']!r}"
    if of["per_missed"] > 0:
        told += f"; {of['per_missed']:.1f} nats per missed token where {common:.1f} are usual"
    return told
