"""Numbers of the run as rows: a table on the page says what the plot beside it shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logit

from zpd_ray.ability import Standing
from zpd_ray.calibration import Fit
from zpd_ray.matching import zone_of
from zpd_ray.report.cost import Cost
from zpd_ray.report.page.estimates import Bin, GroupTheta, Z, wilson
from zpd_ray.report.page.sample import cut
from zpd_ray.report.page.tally import BIN, LIMIT, Tally
from zpd_ray.rundir.records import Metrics

Rows = list[dict[str, Any]]
BARS = 48  # of a histogram, about
TAIL = 0.001  # of the pool at each end, that may lie beyond the bars


@dataclass(frozen=True)
class Table:
    """What a screen reader reads, and whoever wants the figures."""

    caption: str
    columns: list[str]
    rows: list[list[str]]


def model_name(behind: int) -> str:
    """Of the model that has so many stages of training behind it."""
    return "base" if behind == 0 else str(behind)


def ability_rows(standings: dict[int, Standing]) -> Rows:
    """By stages of training behind the model: theta with its band, on the scale of the last fit."""
    found = []
    for behind, at in standings.items():
        low, high = at.theta - Z * at.se, at.theta + Z * at.se
        name = model_name(behind)
        said = f"model {name}: theta {at.theta:z.2f}, {low:z.2f} to {high:z.2f}"
        row = {"model": name, "value": at.theta, "low": low, "high": high, "said": said, "se": at.se}
        found.append(row | {"right": at.right, "expected": at.expected})
    return found


def ability_table(rows: Rows) -> Table:
    columns = ["model", "theta", "standard error", "from", "to", "untrained items right", "expected of them"]
    told = [
        [
            row["model"],
            *(_two(row[name]) for name in ("value", "se", "low", "high")),
            *(_share(row[name]) for name in ("right", "expected")),
        ]
        for row in rows
    ]
    return Table("Ability by model, logits, with its 95 % band", columns, told)


def accuracy_rows(metrics: dict[int, Metrics]) -> Rows:
    """By stages of training behind the model: accuracy with its interval, and NLL."""
    found = []
    for behind, of in metrics.items():
        if of.accuracy is not None and of.items:
            low, high = wilson(of.accuracy, of.items)
            name = model_name(behind)
            said = f"model {name}: {of.accuracy:.3f} of {of.items} items, {low:.3f} to {high:.3f}"
            row = {"model": name, "value": of.accuracy, "low": low, "high": high, "said": said}
            found.append(row | {"items": of.items, "right": of.right, "nll": of.nll, "groups": of.groups})
    return found


def accuracy_table(rows: Rows) -> Table:
    columns = ["model", "accuracy", "from", "to", "items", "NLL, nats per token"]
    told = [
        [
            row["model"],
            *(f"{row[n]:.3f}" for n in ("value", "low", "high")),
            str(row["items"]),
            _share(row["nll"]),
        ]
        for row in rows
    ]
    return Table("Accuracy on the evaluation set, with its 95 % interval, and NLL", columns, told)


def loss_rows(metrics: dict[int, Metrics], trained: dict[int, float]) -> Rows:
    """NLL on the evaluation set of each model, and the mean NLL while it was trained."""
    series = {
        "evaluation set": {behind: of.nll for behind, of in metrics.items() if of.nll is not None},
        "while training": trained,
    }
    return [
        {
            "model": model_name(behind),
            "series": name,
            "value": value,
            "low": value,
            "high": value,
            "said": f"model {model_name(behind)}, {name}: {value:.3f} nats per token",
        }
        for name, values in series.items()
        for behind, value in sorted(values.items())
    ]


def loss_table(rows: Rows) -> Table:
    told = [[row["model"], row["series"], f"{row['value']:.3f}"] for row in rows]
    return Table("Loss: mean NLL", ["model", "of", "nats per token"], told)


def group_rows(found: dict[int, dict[int, GroupTheta]], names: list[str]) -> Rows:
    """By model and group: ability with its band. found: by stages of training, then number of the group."""
    rows, labels = [], _labels(names)
    for behind, by_group in found.items():
        for group, of in by_group.items():
            name = names[group] if group < len(names) else None
            told = labels[name] if name is not None else "other groups"
            low, high = of.theta - Z * of.se, of.theta + Z * of.se
            said = f"{told}, model {model_name(behind)}: theta {of.theta:z.2f}, {low:z.2f} to {high:z.2f}"
            row = {
                "model": model_name(behind),
                "series": told,
                "value": of.theta,
                "low": low,
                "high": high,
            }
            rows.append(row | {"said": said, "share": of.share, "items": of.items, "group": name})
    return rows


def _labels(names: list[str]) -> dict[str, str]:
    """A short name of each group, different ones of different groups."""
    short = {name: cut(name, 80) if name else "no group" for name in names}
    twice = {label for label, count in Counter(short.values()).items() if count > 1}
    return {
        name: f"{label} ({number})" if label in twice else label
        for number, (name, label) in enumerate(short.items())
    }


def group_table(rows: Rows, accuracy: Rows) -> Table:
    """With accuracy of the evaluation set's items of the same group, where it has such items."""
    right = {row["model"]: row["groups"] for row in accuracy}
    columns = ["group", "model", "theta", "from", "to", "untrained items", "of these right", "accuracy"]
    told = [
        [
            row["series"],
            row["model"],
            *(_two(row[name]) for name in ("value", "low", "high")),
            str(row["items"]),
            _share(row["share"]),
            _share(right.get(row["model"], {}).get(row["group"])),
        ]
        for row in rows
    ]
    return Table("Ability and accuracy by group", columns, told)


@dataclass(frozen=True)
class Difficulty:
    """The pool by b at a stage, on the scale of the last fit."""

    rows: Rows
    theta: float
    zone: tuple[float, float]  # of b
    beyond: int  # items outside the rows


def difficulty(tally: Tally, theta: float, target_p: float) -> Difficulty:
    """About ``BARS`` bars whatever the spread. theta: of the stage, on the scale of the last fit."""
    own = tally.fit.ability.theta
    edges = BIN * np.arange(len(tally.pool) + 1) - LIMIT
    low_p, high_p = zone_of(target_p)
    zone = (own - float(logit(high_p)), own - float(logit(low_p)))
    total, cumulative = int(tally.pool.sum()), np.cumsum(tally.pool)
    first = int(np.searchsorted(cumulative, TAIL * total, side="right"))
    last = int(np.searchsorted(cumulative, (1 - TAIL) * total))
    together = max(1, -(-(last + 1 - first) // BARS))
    moved, rows, seen = theta - own, [], 0
    for at in range(first, last + 1, together):
        pool, inside, replay = (
            int(of[at : at + together].sum()) for of in (tally.pool, tally.zone, tally.replay)
        )
        low, high = edges[at] + moved, edges[min(at + together, len(tally.pool))] + moved
        said = f"b {low:z.2f} to {high:z.2f}: {pool} items, {inside} for the zone, {replay} for replay"
        rows.append({"low": low, "high": high, "pool": pool, "zone": inside, "replay": replay, "said": said})
        seen += pool
    shifted = (zone[0] + moved, zone[1] + moved)
    return Difficulty(rows, theta, shifted, total - seen)


def difficulty_table(stage: int, rows: Rows) -> Table:
    columns = ["b from", "to", "items", "selected for the zone", "selected for replay"]
    told = [
        [_two(row["low"]), _two(row["high"]), *(str(row[n]) for n in ("pool", "zone", "replay"))]
        for row in rows
    ]
    return Table(f"The pool by difficulty at stage {stage}", columns, told)


def calibration_rows(bins: list[Bin]) -> Rows:
    """For the plot."""
    said = "expected {0.predicted:.3f}, right {0.observed:.3f} ({0.low:.3f} to {0.high:.3f}), {0.items} items"
    return [each._asdict() | {"said": said.format(each)} for each in bins]


def calibration_table(stage: int, bins: list[Bin]) -> Table:
    columns = ["expected p", "share right", "from", "to", "right", "responses", "items"]
    told = [
        [
            *(f"{value:.3f}" for value in (each.predicted, each.observed, each.low, each.high)),
            *(str(value) for value in (each.right, each.responses, each.items)),
        ]
        for each in bins
    ]
    return Table(f"Calibration of p at stage {stage}, with 95 % intervals", columns, told)


def cost_rows(costs: list[Cost]) -> Rows:
    """Seconds by stage and purpose."""
    return [
        {
            "stage": str(stage),
            "purpose": purpose,
            "seconds": seconds,
            "said": f"stage {stage}, {purpose}: {seconds:.0f} seconds",
        }
        for stage, cost in enumerate(costs)
        for purpose, seconds in (("selecting", cost.selecting_seconds), ("training", cost.training_seconds))
    ]


def cost_table(costs: list[Cost]) -> Table:
    columns = ["stage", "selecting, s", "training, s", "tokens read", "tokens generated", "tokens trained on"]
    told = [[str(stage), *_cost(cost)] for stage, cost in enumerate(costs)]
    return Table("Cost of selecting and of training", columns, [*told, ["all", *_cost(sum(costs, Cost()))]])


def _cost(cost: Cost) -> list[str]:
    seconds = (cost.selecting_seconds, cost.training_seconds)
    counts = (cost.prefilled, cost.generated, cost.trained)
    return [*(f"{value:.0f}" for value in seconds), *(f"{value:,}" for value in counts)]


def standings(last: Fit, behind: dict[int, int]) -> dict[int, Standing]:
    """By stages of training behind the model. ``behind``: of the model that a stage has measured."""
    return {behind[at.stage]: at for at in last.ability.stages}


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _two(value: float) -> str:
    """Two decimals, without a minus before what is 0 then."""
    return f"{value:z.2f}"
