"""The closing table of a run: per stage its ability, what was selected from where, accuracy and cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from zpd_ray.ability import Standing
from zpd_ray.drift import Probed
from zpd_ray.report.cost import Cost, costs
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import REPORT, StageFiles
from zpd_ray.rundir.records import (
    Event,
    Metrics,
    load_events,
    load_fit,
    load_metrics,
    load_selection,
)
from zpd_ray.terminal import results

COLUMNS = (
    *("stage", "theta", "untrained", "selected", "b", "p", "from"),
    *("accuracy", "selecting", "training"),
)
GROUPS = 3  # named in the table
PROFILE = 8  # groups whose abilities are shown, the largest
WIDE = 110  # characters of a terminal from which they are


@dataclass(frozen=True)
class StageRow:
    """A stage that is finished.

    theta, se, gain (since stage 0), gain_se: of the model that it measured, in logits on the scale of the
    last fit. untrained_right: share right at the stage of the items that no stage has trained on, by which a
    reader can check theta; None where none answered. selected: items, ``replay`` of them mastered. mean_b,
    mean_p: over the zone's share. groups: selected items by group. accuracy, evaluation_nll (nats per token):
    of the model that it left, None without an evaluation set. adopted: trained elsewhere. result: path
    of what was trained, None where nothing is. probed: what the stage learnt of its probes, None where it
    measured everything. group_thetas: ability by group, the largest first, on the scale of the last fit;
    empty where it is not told by group.
    """

    stage: int
    theta: float
    se: float
    gain: float
    gain_se: float
    untrained_right: float | None
    selected: int
    replay: int
    mean_b: float
    mean_p: float
    groups: dict[str, int]
    accuracy: float | None
    evaluation_nll: float | None
    cost: Cost
    adopted: bool
    result: str | None
    probed: Probed | None = None
    group_thetas: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """A finished run.

    base: the model before training. cost: of all stages. idle: share of the time in which train workers of a
    split placement waited; None elsewhere. result: path of what the last stage has trained, of the kind
    "adapter" or "model"; None where nothing is. report: path of the page, None where none was written.
    """

    output: str
    method: str
    base: Metrics
    stages: list[StageRow]
    cost: Cost
    idle: float | None
    kind: str | None
    result: str | None
    report: str | None


def summary(run: Run) -> Summary:
    """The closing table of a finished run, in plain values."""
    config, spent = run.config, costs(run)
    last = load_fit(run.store, config.stages - 1).ability
    rows = [_row(run, stage, last.at(stage), spent[stage]) for stage in range(config.stages)]
    return Summary(
        output=run.store.root,
        method=config.select.method,
        base=load_metrics(run.store, None),
        stages=rows,
        cost=sum(spent, Cost()),
        idle=idle_share(load_events(run.store)) if config.cluster.placement == "split" else None,
        kind=config.train.result if run.trains else None,
        result=rows[-1].result,
        report=run.store.path(REPORT) if run.store.exists(REPORT) else None,
    )


def _row(run: Run, stage: int, standing: Standing, cost: Cost) -> StageRow:
    fit = load_fit(run.store, stage)
    moved = standing.theta - fit.ability.theta  # to the scale of the last fit
    profile = fit.groups.standings if fit.groups is not None else []
    files = StageFiles(stage)
    chosen, metrics = load_selection(run.store, files.selection()), load_metrics(run.store, stage)
    return StageRow(
        stage=stage,
        theta=standing.theta,
        se=standing.se,
        gain=standing.gain,
        gain_se=standing.gain_se,
        untrained_right=standing.right,
        selected=chosen.selected,
        replay=chosen.replay,
        mean_b=chosen.mean_b + moved,
        mean_p=chosen.mean_p,
        groups=chosen.groups,
        accuracy=metrics.accuracy,
        evaluation_nll=metrics.nll,
        cost=cost,
        adopted=run.adopted(stage),
        result=run.store.path(f"{files.directory}/{run.config.train.result}") if run.trains else None,
        probed=fit.probed,
        group_thetas={at.group: at.theta + moved for at in profile if at.group is not None},
    )


def draw(summary: Summary) -> None:
    """The table, the cost and where the result is."""
    title = f"{summary.method}, {len(summary.stages)} stages"
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    wide = results.width >= WIDE
    for column in COLUMNS:
        if wide or column != "from":
            table.add_column(column)
    for cells in [_base(summary), *map(_cells, summary.stages)]:
        table.add_row(*(cell for name, cell in cells.items() if wide or name != "from"))
    results.print(table)
    if summary.stages[-1].group_thetas:
        _draw_profile(summary.stages)
    for row in summary.stages:
        for part in row.probed.drifted if row.probed else ():
            results.print(f"stage {row.stage}: {part.told}", highlight=False, markup=False, soft_wrap=True)
    results.print(cost_in_words(summary.cost), highlight=False, soft_wrap=True)
    if summary.idle is not None:
        told = f"train workers idled for {summary.idle:.0%} of the time after their first stage"
        results.print(told, highlight=False)
    if summary.result is not None:
        results.print(f"tuned {summary.kind}: {summary.result}", highlight=False, soft_wrap=True)
    if summary.report is not None:
        results.print(f"report: {summary.report}", highlight=False, soft_wrap=True)


def _draw_profile(stages: list[StageRow]) -> None:
    """theta by group and stage."""
    names = list(stages[-1].group_thetas)
    table = Table(title="theta by group", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("group", *(f"stage {row.stage}" for row in stages)):
        table.add_column(column, overflow="fold")
    for name in names[:PROFILE]:
        table.add_row(Text(name), *(f"{row.group_thetas[name]:.2f}" for row in stages))
    results.print(table)
    if len(names) > PROFILE:
        results.print(f"and {len(names) - PROFILE} smaller groups: fit.json", highlight=False)


def _base(summary: Summary) -> dict[str, str]:
    known = {"stage": "base", "accuracy": _share(summary.base.accuracy)}
    return {column: known.get(column, "") for column in COLUMNS}


def _cells(row: StageRow) -> dict[str, str]:
    cells = (
        str(row.stage),
        f"{row.theta:.2f} +- {row.se:.2f}",
        _share(row.untrained_right),
        f"{row.selected - row.replay} + {row.replay}",
        f"{row.mean_b:.2f}",
        f"{row.mean_p:.2f}",
        _largest(row.groups),
        _share(row.accuracy),
        f"{row.cost.selecting_seconds:.0f} s",
        "elsewhere" if row.adopted else f"{row.cost.training_seconds:.0f} s",
    )
    return dict(zip(COLUMNS, cells, strict=True))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def cost_in_words(cost: Cost) -> str:
    """What was spent, in a line."""
    tokens = f"{cost.prefilled:,} tokens read, {cost.generated:,} generated"
    told = f"selecting: {cost.selecting_seconds:.0f} s, {tokens}"
    if cost.ratio is None:
        return told
    trained = f"{cost.training_seconds:.0f} s, {cost.trained:,} response tokens"
    return f"{told}; training: {trained}; {cost.ratio:.2g} s of selecting per second of training"


def _largest(groups: dict[str, int]) -> str:
    """The groups that most of the selection comes from."""
    order = sorted(groups.items(), key=lambda item: (-item[1], item[0]))
    told = ", ".join(f"{group or 'no group'} {count}" for group, count in order[:GROUPS])
    return told + (f" and {len(order) - GROUPS} more" if len(order) > GROUPS else "")


def idle_share(events: list[Event]) -> float | None:
    """Share of the time from the end of their first stage in which train workers had nothing to train.

    None when no stage was trained by workers that were up since the stage before.
    """
    later = [event for event in events if "waited" in event.details]
    waited = sum(event.details["waited"] for event in later)
    busy = sum(event.seconds or 0.0 for event in later)
    return waited / (waited + busy) if later else None
