"""What a comparison has come to, of the runs that are finished, in plain values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zpd_ray.compare.cells import Cell
from zpd_ray.compare.cost import needed
from zpd_ray.compare.file import ALL, REFERENCE
from zpd_ray.compare.outcomes import Outcome, last_outcome, outcome
from zpd_ray.compare.picks import by_group, by_truth, counted, in_common, notes
from zpd_ray.compare.plan import Plan, Row
from zpd_ray.compare.statistics import Interval, crossed
from zpd_ray.errors import ZpdError
from zpd_ray.report.cost import Cost
from zpd_ray.rundir import Run

Floats = NDArray[np.float64]
Runs = dict[int, Run]  # the finished runs of a row, by seed


@dataclass(frozen=True)
class Line:
    """A method at a budget.

    seeds: whose runs are in it. values: what tuning has chosen. accuracy, nll (nats per token): of the last
    model, with intervals over seeds and items. more_accuracy, more_nll: the paired difference to random of
    the same budget, over the seeds that both have; None where there is none; told: the former in words.
    unmeasured: items of the table that a run could not measure, and that its figures leave out.
    selected: items; selecting, training: tokens and seconds of a run, means over seeds; tokens that training
    counts are those of responses. groups, truth: shares of the items selected. notes: what was said of
    selections, and of how many of ``selections``.
    """

    method: str
    budget: float
    seeds: list[int]
    values: dict[str, Any]
    accuracy: Interval
    nll: Interval
    more_accuracy: Interval | None
    more_nll: Interval | None
    told: str
    unmeasured: int
    selected: float
    selecting_tokens: float
    training_tokens: float
    selecting_seconds: float
    training_seconds: float
    groups: dict[str, float]
    truth: dict[str, float]
    selections: int
    notes: dict[str, int]


@dataclass(frozen=True)
class Overlap:
    """shares[i][j]: of what method i has selected, the share that method j has, too; mean over seeds."""

    budget: float
    methods: list[str]
    shares: list[list[float]]


@dataclass(frozen=True)
class Result:
    """items: of the evaluation set, which the table is over; the others are for tuning. base_accuracy,
    base_nll: of the base model on them. missing: runs that are not there, in words; failed: why, of those
    that did not end well.
    """

    output: str
    items: int
    items_for_tuning: int
    base_accuracy: Interval
    base_nll: Interval
    lines: list[Line]
    overlaps: list[Overlap] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def result(plan: Plan, failed: dict[Cell, str]) -> Result | None:
    """Of what is finished; None where no row has a run."""
    runs = {row: _runs(plan, row) for row in plan.rows}
    judged = {row: _judged(plan, each) for row, each in runs.items() if each}
    if not judged:
        return None
    some = next(run for each in runs.values() for run in each.values())
    base = outcome(some, plan.tuned_share, None)
    lines = [_line(plan, row, runs[row], judged[row], judged.get((REFERENCE, row[1]), {})) for row in judged]
    return Result(
        output=plan.comparison.output,
        items=int((~base.for_tuning).sum()),
        items_for_tuning=int(base.for_tuning.sum()),
        base_accuracy=_mean([base], "credit"),
        base_nll=_mean([base], "nll"),
        lines=sorted(lines, key=lambda line: line.budget),
        overlaps=[o for budget in plan.comparison.budgets if (o := _overlap(plan, runs, budget))],
        missing=[str(cell) for row in plan.rows for cell in _missing(plan, row)],
        failed={str(cell): why for cell, why in failed.items()},
    )


def _runs(plan: Plan, row: Row) -> Runs:
    values = plan.best(row)
    if values is None:
        return {}
    found = {cell.seed: plan.finished(cell) for cell in plan.of_table(row, values)}
    return {seed: run for seed, run in found.items() if run is not None}


def _missing(plan: Plan, row: Row) -> list[Cell]:
    cells = [*plan.trials(row), *plan.of_table(row, plan.best(row) or plan.combinations[0])]
    return [cell for cell in cells if plan.finished(cell) is None]


def _judged(plan: Plan, runs: Runs) -> dict[int, Outcome]:
    return {seed: last_outcome(run, plan.tuned_share) for seed, run in runs.items()}


def _line(
    plan: Plan, row: Row, runs: Runs, judged: dict[int, Outcome], reference: dict[int, Outcome]
) -> Line:
    spent = [needed(run) for run in runs.values()]
    total, n = sum(spent, Cost()), len(spent)
    both = [seed for seed in judged if seed in reference and row[0] != REFERENCE]
    ours, theirs = [judged[seed] for seed in both], [reference[seed] for seed in both]
    groups = sum((by_group(run) for run in runs.values()), Counter[str]())
    column = plan.comparison.truth
    truth = sum((by_truth(run, column) for run in runs.values()), Counter[str]()) if column else Counter()
    more = _difference(ours, theirs, "credit") if both else None
    return Line(
        method=row[0],
        budget=row[1],
        seeds=list(runs),
        values=dict(plan.best(row) or ()),
        accuracy=_mean(list(judged.values()), "credit"),
        nll=_mean(list(judged.values()), "nll"),
        more_accuracy=more,
        more_nll=_difference(ours, theirs, "nll") if both else None,
        told=f"{more.told} random" if more else "",
        unmeasured=int((~_measured(_values(list(judged.values()), "credit"))).sum()),
        selected=groups.total() / n,
        selecting_tokens=(total.prefilled + total.generated) / n,
        training_tokens=total.trained / n,
        selecting_seconds=total.selecting_seconds / n,
        training_seconds=total.training_seconds / n,
        groups=_shares(groups),
        truth=_shares(truth),
        selections=sum(run.config.stages for run in runs.values()),
        notes=counted([note for run in runs.values() for note in notes(run)]),
    )


def _shares(counts: Counter[str]) -> dict[str, float]:
    return {name: count / counts.total() for name, count in sorted(counts.items())}


def _values(outcomes: list[Outcome], what: str) -> Floats:
    """Of the items that the table is over: (seeds, items), NaN where one could not be measured."""
    values: Floats = np.stack([getattr(each, what)[~each.for_tuning] for each in outcomes])
    return values


def _mean(outcomes: list[Outcome], what: str) -> Interval:
    return _interval(_values(outcomes, what))


def _difference(ours: list[Outcome], theirs: list[Outcome], what: str) -> Interval:
    return _interval(_values(ours, what) - _values(theirs, what))


def _interval(values: Floats) -> Interval:
    """Over the items that were measured in every seed. Raises ZpdError where there is none."""
    if not _measured(values).any():
        raise ZpdError(
            f"none of {values.shape[1]} evaluation items was measured in every run that is compared; the "
            "column `error` of their evaluation/ files has the reasons"
        )
    return crossed(values[:, _measured(values)])


def _measured(values: Floats) -> NDArray[np.bool_]:
    """Which items have a value in every seed: (items,)."""
    return np.asarray(np.isfinite(values).all(axis=0))


def _overlap(plan: Plan, runs: dict[Row, Runs], budget: float) -> Overlap | None:
    """Of the methods with a run at a budget, over the seeds that all have; None for fewer than two."""
    here = {row[0]: each for row, each in runs.items() if row[1] == budget and each}
    seeds = [seed for seed in plan.comparison.seeds if all(seed in each for each in here.values())]
    names = [name for name in here if plan.contenders[name].selects_by != ALL]
    if len(names) < 2 or not seeds:
        return None
    of_seeds = []
    for seed in seeds:
        both = in_common([here[name][seed] for name in names])
        of_seeds.append(both / np.maximum(np.diag(both), 1)[:, None])
    return Overlap(budget, names, np.mean(of_seeds, axis=0).tolist())
