"""A run at a moment: as tables for a screen, as a line for a log."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from zpd_ray.report.live.history import StageSoFar
from zpd_ray.report.live.look import RUNNING, Activity, Live
from zpd_ray.report.live.time_left import about
from zpd_ray.report.summary import cost_in_words
from zpd_ray.rundir.layout import STEPS
from zpd_ray.terminal import results


def draw(live: Live) -> None:
    """Print it."""
    results.print(drawing(live), highlight=False)


def drawing(live: Live) -> RenderableType:
    """State, steps under way with what is left, stages so far, cost so far."""
    parts: list[RenderableType] = [Text(f"{live.run}: {live.state}"), Text(live.told)]
    if live.state == RUNNING:
        parts.append(Text(f"left: {_lefts(live)}"))
    if live.doing:
        parts.append(_steps(live.doing))
    if live.stages or live.base_accuracy is not None:
        parts += [_stages(live), Text(cost_in_words(live.cost))]
    return Group(*parts)


def line(live: Live) -> str:
    """For a log."""
    told = [f"{live.state}: {_step(each)} {_how_far(each)}".rstrip() for each in live.doing]
    told = told or [f"{live.state}: {live.told}"]
    if live.state == RUNNING:
        told.append(f"left: {_lefts(live)}")
    return "; ".join([*told, *_theta(live)])


def below(live: Live) -> str:
    """What the command that is at work shows below its bars."""
    tokens = [
        f"{_per_second(each.tokens_per_second)[:-2]} tokens/s"
        for each in live.doing
        if each.tokens_per_second
    ]
    left = "" if live.stage_left is None and live.run_left is None else f"left: {_lefts(live)}"
    return "; ".join(filter(None, [left, *tokens, *_theta(live)]))


def _theta(live: Live) -> list[str]:
    """Of the last stage that has one."""
    return [f"theta {_band(stage)}" for stage in live.stages if stage.band][-1:]


def _lefts(live: Live) -> str:
    return f"stage {about(live.stage_left)}, run {about(live.run_left)}"


def _steps(doing: list[Activity]) -> Table:
    table = Table(box=SIMPLE)
    for name in ("at work", "done", "items", "tokens", "so far", "left"):
        table.add_column(name)
    for each in doing:
        so_far = about(max(1.0, each.seconds)).removeprefix("about ")
        rates = [_per_second(each.rate), _per_second(each.tokens_per_second)]
        table.add_row(_step(each), _how_far(each), *rates, so_far, about(each.left))
    return table


def _step(each: Activity) -> str:
    return each.step if each.stage is None else f"stage {each.stage}: {each.step}"


def _how_far(each: Activity) -> str:
    if each.done is None:
        return ""
    return f"{each.done:,}" if each.total is None else f"{each.done:,} of {each.total:,}"


def _per_second(rate: float | None) -> str:
    if rate is None:
        return ""
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"


def _stages(live: Live) -> Table:
    taken = [step.name for step in STEPS if any(step.name in stage.seconds for stage in live.stages)]
    table = Table(box=SIMPLE, caption_justify="left")
    for name in ("stage", "theta, 95 %", "selected", "mean p", "accuracy", *taken):
        table.add_column(name)
    table.add_row("base", "", "", "", _number(live.base_accuracy, 3))
    for stage in live.stages:
        selected = "" if stage.selected is None else f"{stage.selected:,}"
        cells = [_band(stage), selected, _number(stage.p_mean, 2), _number(stage.accuracy, 3)]
        table.add_row(str(stage.stage), *cells, *(_seconds(stage.seconds.get(step)) for step in taken))
    if live.count is not None:
        table.caption = f"{live.count} stages in all"
    return table


def _band(stage: StageSoFar) -> str:
    if stage.theta is None or stage.band is None:
        return ""
    return f"{stage.theta:.2f} ({stage.band[0]:.2f} to {stage.band[1]:.2f})"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else about(max(1.0, seconds)).removeprefix("about ")
