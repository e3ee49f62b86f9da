"""The plots of the page, each with its table and a sentence on how to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from zpd_ray.report.cost import Cost, costs
from zpd_ray.report.page import charts, probes, tables
from zpd_ray.report.page.estimates import GroupTheta, calibration, group_thetas, told_by_fit
from zpd_ray.report.page.tables import Table
from zpd_ray.report.page.tally import Tally
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import BASE, EVALUATE, METRICS, POOL, SELECT, TRAIN
from zpd_ray.rundir.records import Metrics, load_closing, load_metrics

STAGES_DRAWN = 4  # of plots that there are one of at each stage
UNMEASURED = " The last model has none: a further stage would measure it."


MODELS, DIFFICULTY, CALIBRATION, DRIFT, COST = (
    "Ability and accuracy",
    "Difficulty and selection",
    "Calibration of p",
    "Drift",
    "Cost",
)
# What holds for all plots of a section.
SECTIONS = {
    MODELS: "By how many stages of training the model has had.",
    DIFFICULTY: "The pool by difficulty b, after the responses of the stage; shaded the zone, dashed theta. "
    "All stages are on the scale of the last fit. The zone is drawn for items that cannot be guessed.",
    CALIBRATION: "How many responses are right where the fit expects a share p of them, from the NLL alone, "
    "before an item's own responses are looked at. Of items never trained on, with Wilson's 95 % interval; "
    "rollouts of an item count as what they say together. On the dashed line p is what it says.",
    DRIFT: "Probes are items that are never trained on and are asked at every stage. Their responses are "
    "held against what earlier stages predict at the ability of now: a group, or a band of difficulty, that "
    "answers otherwise has drifted.",
    COST: "Selecting is measuring, fitting and selecting; evaluating is in neither. Of what ended well.",
}


@dataclass(frozen=True)
class Figure:
    """draw(width in pixels) -> Vega-Lite specification; None where the table says it all."""

    section: str  # of the page, a key of ``SECTIONS``
    title: str
    note: str
    draw: Callable[[int], dict[str, Any]] | None
    table: Table


def figures(run: Run, groups: list[str], tallies: list[Tally]) -> list[Figure]:
    """In order of the page; those without anything to show are left out."""
    metrics = metrics_of(run)
    drawn = [tallies[at] for at in _spread(len(tallies))]
    found = [
        *_of_models(run, tallies, groups, metrics),
        *_difficulties(run, drawn),
        *(_calibration(tally) for tally in drawn),
        _drift(tallies),
        *_cost(costs_so_far(run)),
    ]
    return [figure for figure in found if figure.table.rows]


def _spread(n: int) -> list[int]:
    """At most ``STAGES_DRAWN`` of n stages, the first and the last among them."""
    last = min(n, STAGES_DRAWN) - 1
    return [round(i * (n - 1) / last) for i in range(last + 1)] if last else [0]


def stages_behind(run: Run, stage: int) -> int:
    """Stages of training behind the model that a stage has measured."""
    return stage - run.staleness(stage) if run.trains else stage


def metrics_of(run: Run) -> dict[int, Metrics]:
    """How models did on the evaluation set, by stages of training behind them."""
    found = {0: load_metrics(run.store, None)} if run.store.exists(f"{BASE}/{METRICS}") else {}
    done = [t for t in range(run.config.stages) if run.finished(t, EVALUATE)]
    return found | {stage + 1: load_metrics(run.store, stage) for stage in done}


def costs_so_far(run: Run) -> list[Cost]:
    """By stage, up to the first that is not finished."""
    last = TRAIN if run.trains else SELECT
    done = next((t for t in range(run.config.stages) if not run.finished(t, last)), run.config.stages)
    return costs(replace(run, config=run.config.model_copy(update={"stages": done})))


def _of_models(
    run: Run, tallies: list[Tally], groups: list[str], metrics: dict[int, Metrics]
) -> Iterator[Figure]:
    last = tallies[-1].fit
    behind = {at.stage: stages_behind(run, at.stage) for at in last.ability.stages}
    able = tables.ability_rows(tables.standings(last, behind))
    accurate, losses = tables.accuracy_rows(metrics), _losses(run)
    models = [tables.model_name(n) for n in sorted({*behind.values(), *metrics, *losses})]
    unmeasured = "" if models[-1] in (row["model"] for row in able) else UNMEASURED
    yield Figure(
        MODELS,
        "Ability",
        "theta and theta +- 1.96 standard errors, in logits. All stages are on the scale of the last fit, on "
        f"which the pool's mean b is 0 at stage 0.{unmeasured}",
        partial(charts.ability, able, models),
        tables.ability_table(able),
    )
    yield Figure(
        MODELS,
        "Accuracy",
        "Share right on the evaluation set, with Wilson's 95 % interval.",
        partial(charts.accuracy, accurate, models),
        tables.accuracy_table(accurate),
    )
    if len(groups) > 1:
        grouped = tables.group_rows(_thetas(tallies, behind, groups), groups)
        yield Figure(
            MODELS,
            "Ability by group",
            "theta on the items of a group that were never trained on, with its 95 % band: the common theta "
            "and how far the group's responses lie from what its NLLs at stage 0 say (with ability.groups: "
            "its NLLs at the stage, as the stage's fit has it). The largest groups.",
            partial(charts.lines, grouped, models, title="ability theta, logits"),
            tables.group_table(grouped, accurate),
        )
    loss = tables.loss_rows(metrics, losses)
    yield Figure(
        MODELS,
        "Loss",
        _loss_of(run),
        partial(charts.lines, loss, models, title="NLL, nats per token"),
        tables.loss_table(loss),
    )


def _loss_of(run: Run) -> str:
    """What the losses are of, in words."""
    if not run.config.reads_prompts:
        told = "Mean NLL of the references, nats per token: on the evaluation set, and"
    else:
        evaluation = run.config.evaluation
        alone = evaluation is not None and evaluation.prompts_alone
        told = (
            f"Mean NLL, nats per token: of the evaluation set's {'prompts' if alone else 'references'}, and"
        )
        told += " of the responses that were trained on"
    return f"{told} while the stage that led to the model was training, on other items at each stage."


def _thetas(
    tallies: list[Tally], behind: dict[int, int], groups: list[str]
) -> dict[int, dict[int, GroupTheta]]:
    first, last = tallies[0].fit, tallies[-1].fit
    found = {}
    for tally in tallies:
        stage = tally.fit.stage
        if stage in behind and tally.answers is not None:
            theta = last.ability.at(stage).theta
            own = group_thetas(tally.answers, last, first, theta)
            found[behind[stage]] = told_by_fit(own, groups, tally.fit, theta)
    return found


def _losses(run: Run) -> dict[int, float]:
    """Mean NLL while a stage trained, by stages of training behind the model that it left.

    A loop of the user's, or a trainer elsewhere, need not tell it.
    """
    done = [t for t in range(run.config.stages) if run.trains and run.finished(t, TRAIN)]
    closed = {stage + 1: load_closing(run.store, stage, TRAIN) for stage in done}
    return {behind: closing["train_nll"] for behind, closing in closed.items() if "train_nll" in closing}


def _difficulties(run: Run, tallies: list[Tally]) -> Iterator[Figure]:
    last, target = tallies[-1].fit, run.config.select.target_p
    items = run.store.read_json(f"{POOL}.json")["items"]
    shown = [tables.difficulty(tally, last.ability.at(tally.fit.stage).theta, target) for tally in tallies]
    ends = [
        b for each in shown for b in (*each.zone, *(row[at] for row in each.rows for at in ("low", "high")))
    ]
    for tally, each in zip(tallies, shown, strict=True):
        stage, chosen = tally.fit.stage, int(tally.zone.sum() + tally.replay.sum())
        of = "of the pool" if tally.looked_at >= items else f"of a sample of the pool's {items:,}"
        beyond = f" {each.beyond:,} items lie beyond the axis." if each.beyond else ""
        yield Figure(
            DIFFICULTY,
            f"Stage {stage}",
            f"{int(tally.pool.sum()):,} items {of}, {tally.in_zone:,} of them in the zone around "
            f"theta = {each.theta:z.2f}; below, the {chosen:,} of them that were selected.{beyond}",
            partial(charts.difficulty, each.rows, each.theta, each.zone, (min(ends), max(ends))),
            tables.difficulty_table(stage, each.rows),
        )


def _calibration(tally: Tally) -> Figure:
    bins, stage = calibration(tally.outcomes), tally.fit.stage
    return Figure(
        CALIBRATION,
        f"Stage {stage}",
        f"{sum(each.responses for each in bins):,} responses to {sum(each.items for each in bins):,} items.",
        partial(charts.calibration, tables.calibration_rows(bins)),
        tables.calibration_table(stage, bins),
    )


def _drift(tallies: list[Tally]) -> Figure:
    """Without rows where no stage asks probes."""
    fits = [tally.fit for tally in tallies]
    rows = probes.drift_rows(fits)
    return Figure(
        DRIFT,
        "Parts of the pool that have drifted" if rows else "Nothing has drifted",
        "How much harder a part is than predicted, against the others, with its 95 % interval. p is "
        "two-sided and corrected for the number of tests; where nothing has drifted, it is the least one.",
        partial(charts.shifts, rows) if rows else None,
        probes.drift_table(fits),
    )


def _cost(spent: list[Cost]) -> Iterator[Figure]:
    if spent:
        total = sum(spent, Cost())
        told = "Nothing was trained here."
        if total.ratio is not None:
            told = f"{total.ratio:.2g} seconds of selecting for each second of training."
        yield Figure(
            COST,
            "Selecting against training",
            told,
            partial(charts.cost, tables.cost_rows(spent)),
            tables.cost_table(spent),
        )
