"""What a run has behind it, as far as its directory tells: read anew when a step has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zpd_ray.ability import Standing
from zpd_ray.plan.scopes import measured_items, probes
from zpd_ray.report.cost import Cost, cost_of
from zpd_ray.report.live.time_left import Key, Plan
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import (
    ANSWERS,
    BASE,
    EVALUATE,
    EVALUATION,
    FIT,
    MEASURE,
    METRICS,
    POOL,
    REHEARSAL,
    SELECT,
    TRAIN,
    StageFiles,
)
from zpd_ray.rundir.records import (
    Event,
    load_closing,
    load_events,
    load_fit,
    load_metrics,
    load_selection,
)
from zpd_ray.selection import METHODS, load
from zpd_ray.selection.budget import resolve_budget

BAND = 1.96  # standard errors: 95 %


@dataclass(frozen=True)
class StageSoFar:
    """A stage that has begun; None where its step has not ended.

    theta, se: of the model that it measured, logits on the scale of the last fit. band: of 95 %. selected:
    items; p_mean: over the zone's share. accuracy: of the model that it left. seconds: by step.
    """

    stage: int
    theta: float | None
    se: float | None
    band: tuple[float, float] | None
    selected: int | None
    p_mean: float | None
    accuracy: float | None
    seconds: dict[str, float]
    cost: Cost


@dataclass(frozen=True)
class History:
    """Of a run that has read its pool.

    tokens: mean per item, of what a step reads or trains on, by step and stage. work: what measuring counts
    at each stage: items, as often as they are measured. workers: that train, of which the first is counted.
    """

    plan: Plan
    finished: frozenset[Key]
    took: dict[Key, float]
    guesses: dict[str, float]
    tokens: dict[tuple[str, int | None], float]
    work: dict[Key, float]
    workers: int
    base_accuracy: float | None
    stages: list[StageSoFar]

    @property
    def is_finished(self) -> bool:
        """Whether the last stage is closed."""
        return (EVALUATE.name, self.plan.stages - 1) in self.finished


def history(run: Run) -> History:
    """What is known of a run."""
    events, names = load_events(run.store), tuple(step.name for step in run.steps)
    stages = range(run.config.stages)
    finished = frozenset((step.name, t) for t in stages for step in run.steps if run.finished(t, step))
    has_base = run.store.exists(f"{BASE}/{METRICS}")
    return History(
        plan=Plan(run.config.stages, names, TRAIN.name if run.overlaps else None),
        finished=finished,
        took={(e.step, e.stage): e.seconds for e in events if e.stage is not None and e.seconds is not None},
        guesses=_guesses(run, events),
        tokens=_tokens(run, finished),
        work=_work(run, finished),
        workers=run.config.train.workers,
        base_accuracy=load_metrics(run.store, None).accuracy if has_base else None,
        stages=_stages(run, events, finished),
    )


def _stages(run: Run, events: list[Event], finished: frozenset[Key]) -> list[StageSoFar]:
    begun = sorted({stage for _, stage in finished})
    fitted = [stage for stage in begun if (FIT.name, stage) in finished]
    ability = load_fit(run.store, fitted[-1]).ability if fitted else None
    return [
        _stage(run, events, stage, finished, ability.at(stage) if ability and stage in fitted else None)
        for stage in begun
    ]


def _stage(
    run: Run, events: list[Event], stage: int, finished: frozenset[Key], standing: Standing | None
) -> StageSoFar:
    chosen = (
        load_selection(run.store, StageFiles(stage).selection()) if (SELECT.name, stage) in finished else None
    )
    metrics = load_metrics(run.store, stage) if (EVALUATE.name, stage) in finished else None
    theta, se = (standing.theta, standing.se) if standing else (None, None)
    return StageSoFar(
        stage=stage,
        theta=theta,
        se=se,
        band=None if theta is None or se is None else (theta - BAND * se, theta + BAND * se),
        selected=None if chosen is None else chosen.selected,
        p_mean=None if chosen is None else chosen.mean_p,
        accuracy=None if metrics is None else metrics.accuracy,
        seconds={e.step: e.seconds for e in events if e.stage == stage and e.seconds is not None},
        cost=cost_of(run, events, stage),
    )


def _guesses(run: Run, events: list[Event]) -> dict[str, float]:
    """Seconds of steps that no stage has taken yet.

    Evaluating: as with the base model. Training: as the step that was tried first, of the longest items.
    Fitting and selecting are next to nothing beside measuring.
    """
    guesses = {FIT.name: 0.0, SELECT.name: 0.0}
    guesses |= {
        e.step: e.seconds for e in events if e.step == EVALUATE.name and e.stage is None and e.seconds
    }
    if run.trains and run.store.exists(REHEARSAL):
        step = run.store.read_json(REHEARSAL)
        rows = _budget_items(run) * run.config.train.epochs / run.config.train.workers
        guesses[TRAIN.name] = rows * step["step_seconds"] / step["rows"]
    return guesses


def _work(run: Run, finished: frozenset[Key]) -> dict[Key, float]:
    """What measuring has counted at each stage, and what it is going to count.

    A stage to come that does not measure everything is taken to be like the last of its kind, and to measure
    what a plan says where there is none yet: probes by ``answers`` alone, candidates by every measure.
    """
    work, last, measures = dict[Key, float](), None, len(_measures(run))
    pool = run.store.read_json(f"{POOL}.json")
    for stage in range(run.config.stages):
        if (MEASURE.name, stage) in finished:
            totals = load_closing(run.store, stage, MEASURE)
            counted = float(sum(each["items"] for each in totals.values() if isinstance(each, dict)))
            last = counted if run.in_rounds(stage) else last
        elif not run.in_rounds(stage):
            counted = float(pool["items"] * measures)
        else:
            counted = _planned(run, pool, measures) if last is None else last
        work[(MEASURE.name, stage)] = counted
    return work


def _measures(run: Run) -> set[str]:
    """Those that are taken, as far as that can be told without importing a method of the user's."""
    ours = (name for name in run.methods if name in METHODS)
    return {ANSWERS, *(need for name in ours for need in load(name).needs)}


def _planned(run: Run, pool: Mapping[str, int], measures: int) -> float:
    """Of a stage that measures in rounds."""
    config, asked = run.config, probes(run.config, pool["items"])
    items = measured_items(config, config.measure.scope, 1, pool["items"], pool["response_tokens"])
    return float(asked + (items - asked) * measures)


def _budget_items(run: Run) -> float:
    """Items that a stage selects, about."""
    pool = run.store.read_json(f"{POOL}.json")
    amount = resolve_budget(run.config.select.budget, pool["items"], pool["response_tokens"])
    return amount.value if amount.unit == "items" else amount.value / pool["response_tokens"] * pool["items"]


def _tokens(run: Run, finished: frozenset[Key]) -> dict[tuple[str, int | None], float]:
    """Measuring and evaluating read prompts and references, training counts response tokens."""
    stages: list[int | None] = [None, *range(run.config.stages)]
    tokens = {(MEASURE.name, stage): _read_per_item(run, POOL) for stage in stages}
    if run.config.evaluation is not None:
        tokens |= {(EVALUATE.name, stage): _read_per_item(run, EVALUATION) for stage in stages}
    for step, stage in finished:
        if step == SELECT.name:
            chosen = load_selection(run.store, StageFiles(stage).selection())
            tokens[(TRAIN.name, stage)] = chosen.tokens / max(1, chosen.selected)
    return tokens


def _read_per_item(run: Run, items: str) -> float:
    pool: Mapping[str, int] = run.store.read_json(f"{items}.json")
    return (pool["prompt_tokens"] + pool["response_tokens"]) / max(1, pool["items"])
