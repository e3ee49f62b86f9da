"""The closing table of a run: per stage its ability, what was selected from where, accuracy and cost."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.table import Table

from zpd_ray.ability import Standing
from zpd_ray.report.cost import Cost, costs
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import StageFiles
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


def print_summary(run: Run) -> None:
    """Per stage: ability, what was selected from where, accuracy afterwards, time and tokens spent.

    Abilities are those of the last fit, so that all are on one scale. "untrained": the share right at the
    stage of the items that no stage has trained on, by which a reader can check theta. b, p: means of the
    zone's share.
    """
    config, spent = run.config, costs(run)
    table = Table(title=f"{config.select.method}, {config.stages} stages", box=SIMPLE)
    for column in COLUMNS:
        table.add_column(column)
    base = load_metrics(run.store, None)
    table.add_row("base", "", "", "", "", "", "", _accuracy(base), "", "")
    last = load_fit(run.store, config.stages - 1).ability
    for stage in range(config.stages):
        table.add_row(*_row(run, stage, last.at(stage), spent[stage]))
    results.print(table)
    results.print(_total(sum(spent, Cost())), highlight=False, soft_wrap=True)
    idle = idle_share(load_events(run.store))
    if config.cluster.placement == "split" and idle is not None:
        results.print(
            f"train workers idled for {idle:.0%} of the time after their first stage", highlight=False
        )
    if run.trains:
        result = f"{StageFiles(config.stages - 1).directory}/{config.train.result}"
        results.print(
            f"tuned {config.train.result}: {run.store.path(result)}", highlight=False, soft_wrap=True
        )


def _total(cost: Cost) -> str:
    tokens = f"{cost.prefilled:,} tokens read, {cost.generated:,} generated"
    told = f"selecting: {cost.selecting_seconds:.0f} s, {tokens}"
    if cost.ratio is None:
        return told
    trained = f"{cost.training_seconds:.0f} s, {cost.trained:,} response tokens"
    return f"{told}; training: {trained}; {cost.ratio:.2g} s of selecting per second of training"


def _row(run: Run, stage: int, standing: Standing, cost: Cost) -> list[str]:
    moved = standing.theta - load_fit(run.store, stage).ability.theta  # to the scale of the last fit
    chosen = load_selection(run.store, StageFiles(stage).selection())
    return [
        str(stage),
        f"{standing.theta:.2f} +- {standing.se:.2f}",
        "-" if standing.right is None else f"{standing.right:.3f}",
        f"{chosen.zone} + {chosen.replay}",
        f"{chosen.mean_b + moved:.2f}",
        f"{chosen.mean_p:.2f}",
        _largest(chosen.groups),
        _accuracy(load_metrics(run.store, stage)),
        f"{cost.selecting_seconds:.0f} s",
        "elsewhere" if run.adopted(stage) else f"{cost.training_seconds:.0f} s",
    ]


def _largest(groups: dict[str, int]) -> str:
    """The groups that most of the selection comes from."""
    order = sorted(groups.items(), key=lambda item: (-item[1], item[0]))
    told = ", ".join(f"{group or 'no group'} {count}" for group, count in order[:GROUPS])
    return told + (f" and {len(order) - GROUPS} more" if len(order) > GROUPS else "")


def _accuracy(metrics: Metrics) -> str:
    return "-" if metrics.accuracy is None else f"{metrics.accuracy:.3f}"


def idle_share(events: list[Event]) -> float | None:
    """Share of the time from the end of their first stage in which train workers had nothing to train.

    None when no stage was trained by workers that were up since the stage before.
    """
    later = [event for event in events if "waited" in event.details]
    waited = sum(event.details["waited"] for event in later)
    busy = sum(event.seconds or 0.0 for event in later)
    return waited / (waited + busy) if later else None
