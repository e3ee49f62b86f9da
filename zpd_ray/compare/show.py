"""The tables of a comparison: on the screen, and as Markdown."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from zpd_ray.compare.result import Line, Overlap, Result
from zpd_ray.compare.statistics import Interval
from zpd_ray.terminal import results

SHOWN = 8  # groups, or kinds of truth, that are shown: the commonest


@dataclass(frozen=True)
class Grid:
    """A table of texts."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def grids(result: Result) -> list[Grid]:
    """Accuracy and cost, what was picked, and overlaps: each by budget."""
    budgets = list(dict.fromkeys(line.budget for line in result.lines))
    found = []
    for budget in budgets:
        lines = [line for line in result.lines if line.budget == budget]
        found += [_accuracies(result, lines), _nlls(result, lines), _costs(lines)]
        found += [grid for grid in (_picked(lines, "groups"), _picked(lines, "truth")) if grid]
        found += [_overlap(each) for each in result.overlaps if each.budget == budget]
    return found


def _accuracies(result: Result, lines: list[Line]) -> Grid:
    columns = ["", "seeds", "accuracy", "less random's", "", "tuned"]
    rows = [["base model", "", _with_ends(result.base_accuracy), "", "", ""]]
    for line in sorted(lines, key=lambda line: -line.accuracy.mean):
        tuned = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in line.values.items())
        seeds = " ".join(map(str, line.seeds))
        ends = [_with_ends(line.accuracy), _signed(line.more_accuracy)]
        rows.append([line.method, seeds, *ends, line.told, tuned])
    return Grid(f"{_percent(lines[0].budget)} of the pool: accuracy", columns, rows)


def _nlls(result: Result, lines: list[Line]) -> Grid:
    columns = ["", "NLL", "less random's"]
    rows = [["base model", _with_ends(result.base_nll), ""]]
    for line in sorted(lines, key=lambda line: line.nll.mean):
        rows.append([line.method, _with_ends(line.nll), _signed(line.more_nll)])
    return Grid(f"{_percent(lines[0].budget)}: NLL of the evaluation set, nats per token", columns, rows)


def _costs(lines: list[Line]) -> Grid:
    columns = ["", "items", "tokens read to select", "trained", "ratio", "s to select", "to train", "ratio"]
    rows = [
        [
            line.method,
            f"{line.selected:,.0f}",
            *_ratio(line.selecting_tokens, line.training_tokens),
            *_ratio(line.selecting_seconds, line.training_seconds),
        ]
        for line in lines
    ]
    return Grid(f"{_percent(lines[0].budget)}: what a run has cost", columns, rows)


def _ratio(selecting: float, training: float) -> list[str]:
    ratio = f"{selecting / training:.2g}" if training else "-"
    return [f"{selecting:,.0f}", f"{training:,.0f}", ratio]


def _picked(lines: list[Line], what: Literal["groups", "truth"]) -> Grid | None:
    """Shares by group or truth; None where nothing is known of it."""
    of_lines = [line.groups if what == "groups" else line.truth for line in lines]
    total = sum((Counter(shares) for shares in of_lines), Counter[str]())
    if set(total) <= {""}:
        return None
    shown = [name for name, _ in total.most_common(SHOWN)]
    rows = [
        [line.method, *(f"{100 * shares.get(name, 0.0):.1f} %" for name in shown)]
        for line, shares in zip(lines, of_lines, strict=True)
    ]
    kind = "group" if what == "groups" else "what the pool says of its items"
    title = f"{_percent(lines[0].budget)}: selected, by {kind}"
    return Grid(title, ["", *(name or "none" for name in shown)], rows)


def _overlap(overlap: Overlap) -> Grid:
    title = f"{_percent(overlap.budget)}: of what the row has selected, the column has, too"
    rows = [
        [name, *(f"{100 * share:.0f} %" for share in shares)]
        for name, shares in zip(overlap.methods, overlap.shares, strict=True)
    ]
    return Grid(title, ["", *overlap.methods], rows)


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _with_ends(value: Interval) -> str:
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _signed(value: Interval | None) -> str:
    return "" if value is None else f"{value.mean:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"


def remarks(result: Result) -> list[str]:
    """What stands below the tables, in sentences."""
    told = [
        f"Accuracy and NLL (nats per token) are over {result.items} items of the evaluation set"
        + (f", tuning over {result.items_for_tuning} others" if result.items_for_tuning else "")
        + "; intervals are 95 %, by a bootstrap over seeds and items. Of many differences some lie outside "
        "of their intervals by chance."
    ]
    for line in result.lines:
        if line.unmeasured:
            told.append(
                f"{line.method}, {_percent(line.budget)}: {line.unmeasured} of {result.items} evaluation "
                "items could not be measured in every run, and are left out of its figures"
            )
        for note, count in line.notes.items():
            told.append(
                f"{line.method}, {_percent(line.budget)}, {count} of {line.selections} selections: {note}"
            )
    told += [f"{cell} did not end: {why}" for cell, why in result.failed.items()]
    if result.missing:
        told.append(f"{len(result.missing)} runs are not there yet, the first: {result.missing[0]}")
    return told


def draw(result: Result) -> None:
    """On the screen."""
    for grid in grids(result):
        table = Table(title=grid.title, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
        for column in grid.columns:
            table.add_column(column)
        for row in grid.rows:
            table.add_row(*map(Text, row))
        results.print(table)
    for sentence in remarks(result):
        results.print(sentence, highlight=False, markup=False, soft_wrap=True)


def markdown(result: Result) -> str:
    """The same for a page."""
    parts = []
    for grid in grids(result):
        lines = [f"**{grid.title}**", "", _row(grid.columns), "|" + "---|" * len(grid.columns)]
        parts.append("\n".join([*lines, *map(_row, grid.rows)]))
    return "\n\n".join([*parts, "\n".join(f"- {sentence}" for sentence in remarks(result))]) + "\n"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
