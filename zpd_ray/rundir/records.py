"""The JSON files of a run directory as typed values: loaded and saved here and nowhere else."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from zpd_ray.calibration import Fit
from zpd_ray.rundir.layout import BASE, EVENTS, FIT, METRICS, SELECT, StageFiles, Step
from zpd_ray.rundir.store import Store


@dataclass(frozen=True)
class Selection:
    """What was selected (selection.json).

    selected: items in all; zone and replay: items by reason; outside_zone: items of the zone's share whose p
    is far from the zone; tokens: response tokens; mean_b, mean_p: over the zone; groups: items by group;
    budget, unit: what was to be spent, and in what; warnings: sentences; left_out: items that were measured
    and that the method gave no score; tied: items that share the lowest score that was taken, replay aside,
    and drawn: how many of them were taken, by a seeded hash of the ids (0 and 0 where all were), with quotas
    added up over groups. near_duplicates: items that would have been taken but for better ones that nearly
    repeat them. quotas: of the zone's budget by group, "" for the items of all groups that have none
    of their own, empty without quotas; passed_over: items that would have been taken but for quotas. own:
    items of which a response of the model's own is trained on; unanswered: items that were measured, without
    one, where nothing else is trained on.
    """

    selected: int
    zone: int
    replay: int
    outside_zone: int
    tokens: int
    mean_b: float
    mean_p: float
    groups: dict[str, int]
    budget: int
    unit: str
    warnings: list[str]
    left_out: int = 0
    tied: int = 0
    drawn: int = 0
    near_duplicates: int = 0
    passed_over: int = 0
    quotas: dict[str, int] = field(default_factory=dict)
    own: int = 0
    unanswered: int = 0


@dataclass(frozen=True)
class Metrics:
    """How a model did on the evaluation set (metrics.json); all None where the run has none.

    items: measured; accuracy: mean credit of them (the share that is right, where no grader gives shares);
    groups: accuracy by group; right: how many are right, shares drawn as right or wrong; failed: items that
    could not be measured; nll: mean over items, nats per token; unparsed: responses without an answer.
    """

    items: int | None = None
    failed: int | None = None
    right: int | None = None
    accuracy: float | None = None
    nll: float | None = None
    unparsed: int | None = None
    groups: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """What was done when, by which stage, in how many seconds. The details are keys of their own."""

    step: str  # of the run, or "scored", "config changed"
    stage: int | None  # None: of no stage
    at: float  # seconds since 1970, at its end
    seconds: float | None  # None: not a step of the run
    details: dict[str, Any]  # totals of the step, by name


def save_fit(store: Store, fit: Fit) -> None:
    """Write fit.json of the fit's stage."""
    store.write_json(StageFiles(fit.stage).closing(FIT), fit.to_json())


def load_fit(store: Store, stage: int) -> Fit:
    """The finished fit of a stage."""
    return Fit.from_json(store.read_json(StageFiles(stage).closing(FIT)))


def save_round_fit(store: Store, number: int, fit: Fit) -> None:
    """Write what is known of ability after a round of probes."""
    store.write_json(f"{StageFiles(fit.stage).round(number)}/{FIT.closes}", fit.to_json())


def load_round_fit(store: Store, stage: int, number: int) -> Fit | None:
    """What was known after a round; None where it is not finished."""
    name = f"{StageFiles(stage).round(number)}/{FIT.closes}"
    return Fit.from_json(store.read_json(name)) if store.exists(name) else None


def save_selection(store: Store, directory: str, selection: Selection) -> None:
    """Write selection.json into a directory (``StageFiles.selection``)."""
    store.write_json(f"{directory}/{SELECT.closes}", asdict(selection))


def load_selection(store: Store, directory: str) -> Selection:
    """The selection that a directory (``StageFiles.selection``) holds."""
    return Selection(**store.read_json(f"{directory}/{SELECT.closes}"))


def save_metrics(store: Store, directory: str, metrics: Metrics) -> None:
    """Write metrics.json into the directory of a stage, or ``base``."""
    store.write_json(f"{directory}/{METRICS}", asdict(metrics) if metrics.items is not None else {})


def load_metrics(store: Store, stage: int | None) -> Metrics:
    """How the model did that ``stage`` has left; None: the base model."""
    directory = BASE if stage is None else StageFiles(stage).directory
    return Metrics(**store.read_json(f"{directory}/{METRICS}"))


def load_closing(store: Store, stage: int, step: Step) -> dict[str, Any]:
    """The plain values in a step's closing file: measured.json, train.json."""
    values: dict[str, Any] = store.read_json(StageFiles(stage).closing(step))
    return values


def add_event(
    store: Store, step: str, stage: int | None, seconds: float | None = None, **details: Any
) -> None:
    """Append a line to events.jsonl."""
    took = {} if seconds is None else {"seconds": round(seconds, 3)}
    store.append_line(EVENTS, {"at": time.time(), "step": step, "stage": stage, **details, **took})


def load_events(store: Store) -> list[Event]:
    """All events of the run and of its resumptions, oldest first."""
    return [_event(line) for line in store.read_lines(EVENTS)]


def _event(line: dict[str, Any]) -> Event:
    details = {key: value for key, value in line.items() if key not in ("at", "step", "stage", "seconds")}
    return Event(line["step"], line["stage"], line["at"], line.get("seconds"), details)
