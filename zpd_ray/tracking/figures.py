"""What trackers are told of a run: by step that has closed, the figures in its files."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator

from zpd_ray.report.cost import cost_of
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import BASE, EVALUATE, FIT, METRICS, SELECT, TRAIN, StageFiles, Step
from zpd_ray.rundir.records import load_closing, load_events, load_fit, load_metrics, load_selection
from zpd_ray.tracking.base import Point

BAND = 1.96  # standard errors: 95 %
TOLD = (FIT, SELECT, TRAIN, EVALUATE)  # steps that have figures, in order


def closed(run: Run, known: Collection[str] = ()) -> list[str]:
    """Names of what has closed, in order; those in ``known`` are not looked for again."""
    names = [BASE] if BASE in known or run.store.exists(f"{BASE}/{METRICS}") else []
    for stage in range(run.config.stages):
        steps = [step for step in TOLD if step in run.steps]
        done = [step for step in steps if _name(stage, step) in known or run.finished(stage, step)]
        names += [_name(stage, step) for step in done]
        if FIT not in done:  # a later stage cannot have begun
            break
    return names


def figures(run: Run, name: str) -> list[Point]:
    """Of one of these names."""
    if name == BASE:
        return list(_accuracy(run, None))
    _, stage, _, step = name.split("-")
    return list(FIGURES[step](run, int(stage)))


def _name(stage: int, step: Step) -> str:
    """In the order of time also as text: trackers may name files by it."""
    return f"stage-{stage:02d}-{TOLD.index(step)}-{step.name}"


def _ended(run: Run, step: Step, stage: int | None) -> float:
    """When the step has ended, by its event; now where it has none (yet)."""
    found = [e.at for e in load_events(run.store) if (e.step, e.stage) == (step.name, stage)]
    return found[-1] if found else time.time()


def _fit(run: Run, stage: int) -> Iterator[Point]:
    """theta as it was known then, and its band of 95 %; a later fit may move the scale a little."""
    ability = load_fit(run.store, stage).ability
    theta, half = ability.theta, BAND * ability.se
    band = {"theta": theta, "theta_low": theta - half, "theta_high": theta + half}
    yield _point(run, FIT, stage, {f"ability/{key}": value for key, value in band.items()})


def _select(run: Run, stage: int) -> Iterator[Point]:
    chosen = load_selection(run.store, StageFiles(stage).selection())
    values: dict[str, float] = {"items": chosen.selected, "tokens": chosen.tokens}
    if chosen.zone:
        inside = 1 - chosen.outside_zone / chosen.zone
        values |= {"in_zone": inside, "mean_p": chosen.mean_p, "mean_b": chosen.mean_b}
    yield _point(run, SELECT, stage, {f"selection/{key}": value for key, value in values.items()})


def _train(run: Run, stage: int) -> Iterator[Point]:
    """Optimiser steps, where the trainer has kept them, and all numbers of train.json."""
    at, tokens = _ended(run, TRAIN, stage), sum(_tokens(run, earlier) for earlier in range(stage))
    first = sum(_steps(run, earlier) for earlier in range(stage))
    if run.store.exists(StageFiles(stage).steps):
        for row in run.store.read_table(StageFiles(stage).steps).to_pylist():
            tokens += row["tokens"]
            values = {"loss": row["loss"], "learning_rate": row["learning_rate"], "tokens": tokens}
            told = {f"train/{key}": float(value) for key, value in values.items()}
            yield Point("optimizer_step", first + row["step"], at, told)
    yield _point(run, TRAIN, stage, {f"trained/{k}": v for k, v in _trained(run, stage).items()})


def _evaluate(run: Run, stage: int) -> Iterator[Point]:
    """Accuracy, and what the whole stage has cost."""
    yield from _accuracy(run, stage)
    cost = cost_of(run, load_events(run.store), stage)
    values = {
        "selecting_seconds": cost.selecting_seconds,
        "selecting_tokens": cost.prefilled + cost.generated,
        "training_seconds": cost.training_seconds,
        "training_tokens": cost.trained,
    }
    yield _point(run, EVALUATE, stage, {f"cost/{key}": value for key, value in values.items()})


def _accuracy(run: Run, stage: int | None) -> Iterator[Point]:
    """Of the model that a stage has left, at the stage that begins with it; the base model's at 0."""
    metrics = load_metrics(run.store, stage)
    found = {"accuracy": metrics.accuracy, "nll": metrics.nll}
    values = {f"evaluation/{key}": float(value) for key, value in found.items() if value is not None}
    if values:
        yield Point("stage", 0 if stage is None else stage + 1, _ended(run, EVALUATE, stage), values)


def _point(run: Run, step: Step, stage: int, values: dict[str, float]) -> Point:
    told = {key: float(value) for key, value in values.items()}
    return Point("stage", stage, _ended(run, step, stage), told)


def _trained(run: Run, stage: int) -> dict[str, float]:
    """The numbers in a train.json, those of a loop of the user's, too."""
    values = load_closing(run.store, stage, TRAIN).items()
    return {k: v for k, v in values if isinstance(v, int | float) and not isinstance(v, bool)}


def _tokens(run: Run, stage: int) -> int:
    return int(_trained(run, stage).get("tokens", 0)) if run.finished(stage, TRAIN) else 0


def _steps(run: Run, stage: int) -> int:
    return int(_trained(run, stage).get("steps", 0)) if run.finished(stage, TRAIN) else 0


FIGURES: dict[str, Callable[[Run, int], Iterator[Point]]] = {
    FIT.name: _fit,
    SELECT.name: _select,
    TRAIN.name: _train,
    EVALUATE.name: _evaluate,
}
