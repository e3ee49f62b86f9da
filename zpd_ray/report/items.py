"""What ``zpd-ray show``, ``zpd-ray why`` and ``zpd-ray suspects`` print."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from zpd_ray.errors import ZpdError
from zpd_ray.report.find import find_items, find_quarantined, missing
from zpd_ray.report.show import Filters, listed
from zpd_ray.report.suspects import Suspects
from zpd_ray.report.why import Standing, item_of, standing
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import MEASURE, StageFiles
from zpd_ray.rundir.records import load_fit, load_selection
from zpd_ray.rundir.selected import check_selected, selected_stages, selection_directory
from zpd_ray.terminal import results

CHARACTERS = 300  # of a prompt, a reference or a response
BRIEF = 60  # of a prompt in a list
RIGHT = ("rank", "b", "p", "score", "stage", "NLL", "right", "threshold")  # columns of numbers


@dataclass(frozen=True)
class Listing:
    """Some of what a method has selected at a stage. rows: as ``show.listed`` gives them."""

    run: str
    stage: int
    method: str
    theta: float
    selected: int
    replay: int
    limit: int
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Explained:
    """What is known of what somebody asked for: an item and how it stood, or a row in quarantine."""

    asked: str
    item: dict[str, Any] | None
    standings: list[Standing]
    quarantined: dict[str, Any] | None


@dataclass(frozen=True)
class Reasons:
    """Of all that was asked for. missing: sentences about what is nowhere."""

    items: list[Explained]
    missing: list[str]


def selected(run: Run, stage: int | None, method: str | None, filters: Filters, limit: int) -> Listing:
    """What ``method`` (None: the one trained on) has selected at a stage (None: the last)."""
    method = method or run.methods[0]
    stage = selected_stages(run, method)[-1] if stage is None else stage
    check_selected(run, stage, method)
    chosen = load_selection(run.store, selection_directory(run, stage, method))
    theta = load_fit(run.store, stage).ability.theta
    rows = list(listed(run, stage, method, filters, limit))
    return Listing(run.store.root, stage, method, theta, chosen.selected, chosen.replay, limit, rows)


def draw_selected(listing: Listing) -> None:
    """A list for people."""
    _say(
        f"stage {listing.stage}, {listing.method}: {listing.selected} items selected, {listing.replay} of "
        f"them for replay; theta = {listing.theta:.2f}"
    )
    rows = [
        [
            str(row["rank"]),
            row["item_id"],
            row["group"] or "-",
            _difficulty(row),
            f"{row['p']:.2f}",
            f"{row['score']:.3g}",
            row["reason"],
            _short(row["prompt"][-1]["content"], BRIEF),
        ]
        for row in listing.rows
    ]
    _print_table(("rank", "item", "group", "b", "p", "score", "reason", "prompt"), rows)
    _say(
        f"{len(rows)} shown (--limit {listing.limit}); "
        f"`zpd-ray why {listing.run} ITEM` explains any item of the pool"
    )


def reasons(run: Run, asked: list[str], stage: int | None, method: str | None) -> Reasons:
    """Everything known of each item. stage, method: None takes all of the run's.

    Raises ZpdError when nothing that was asked for is anywhere.
    """
    methods = run.methods if method is None else [method]
    for name in methods:
        selection_directory(run, 0, name)  # which knows the method
    stages = _stages(run) if stage is None else [_checked(run, stage)]
    found, explained, unknown = find_items(run, asked), [], []
    for name in asked:
        if name in found:
            standings = [standing(run, found[name], t, m) for t in stages for m in methods]
            explained.append(Explained(name, item_of(run, found[name]), standings, None))
        elif row := find_quarantined(run, name):
            explained.append(Explained(name, None, [], row))
        else:
            unknown.append(missing(run, name))
    if not explained:
        raise ZpdError("; ".join(unknown))
    return Reasons(explained, unknown)


def draw_reasons(told: Reasons) -> None:
    """Item by item, for people."""
    for each in told.items:
        if each.item is not None:
            _print_item(each.item, each.standings)
        elif each.quarantined is not None:
            _print_quarantined(each.asked, each.quarantined)


def draw_suspects(found: Suspects) -> None:
    """The list, for people."""
    _say(
        f"{found.scored} of {found.items} items have fewer right responses than expected, over "
        f"{found.stages} stages; those whose references are most likely wrong (a missed token of the "
        "reference is one in whose place the model would say another):"
    )
    rows = [
        [
            f"{each.score:.1f}",
            each.item["item_id"],
            each.why,
            _short(each.item["messages"][-1]["content"], BRIEF),
            _short(each.item["response"] or each.item["response_more"] or "", BRIEF),
        ]
        for each in found.rows
    ]
    _print_table(("score", "item", "why", "prompt", "reference"), rows)
    _say(f"{len(rows)} shown (--top); `zpd-ray why {found.run} ITEM` tells more of one")


def _stages(run: Run) -> list[int]:
    """Those that something was measured at."""
    stages = range(run.config.stages)
    return [t for t in stages if run.store.names(StageFiles(t).measurements()) or run.finished(t, MEASURE)]


def _checked(run: Run, stage: int) -> int:
    if stage not in _stages(run):
        told = ", ".join(map(str, _stages(run))) or "none yet"
        raise ZpdError(
            f"nothing is measured at stage {stage} of {run.store.root}; measured stages are {told}"
        )
    return stage


def _print_item(item: dict[str, Any], standings: list[Standing]) -> None:
    group = f", group {item['group']}" if item["group"] else ""
    _say(f"{item['item_id']}: row {item['source_row']} of {item['source_file']}{group}")
    told = {
        "prompt": item["messages"][-1]["content"],
        "reference": item["response"] or item["response_more"],
        "answer": item["answer"],
    }
    told |= {
        f"a response at stage {s.last_measured}": s.measured["completion"]
        for s in standings
        if s.measured and s.measured["completion"]
    }
    for name, text in told.items():
        if text is not None:
            _say(f"  {name}: {_short(text, CHARACTERS)}")
    columns = ("stage", "method", "NLL", "right", "b", "p", "score", "threshold", "rank", "why")
    _print_table(columns, [_row(standing) for standing in standings])


def _row(at: Standing) -> list[str]:
    measured, judged = at.measured or {"nll": None}, at.judged
    nll = measured["nll"]
    numbers = [
        "-" if nll is None else f"{nll:.3f}",
        "-" if nll is None else f"{measured['successes']} of {measured['rollouts']}",
        *(
            ["-"] * 3
            if judged is None
            else [_difficulty(judged), f"{judged['p']:.2f}", f"{judged['score']:.3g}"]
        ),
        "-" if at.threshold is None else f"{at.threshold:.3g}",
        "-" if at.rank is None else str(at.rank),
    ]
    return [str(at.stage), at.method, *numbers, at.why]


def _print_quarantined(name: str, row: dict[str, Any]) -> None:
    _say(f"{name}: in quarantine: {row['reason']}, {row['detail']}")
    _say(f"  row {row['source_row']} of {row['source_file']}")
    _say(f"  it begins: {_short(row['content'] or '', CHARACTERS)}")


def _difficulty(of: dict[str, Any]) -> str:
    return f"{of['b']:.2f} +- {of['b_sd']:.2f}"


def _short(text: str, characters: int) -> str:
    """In one line, cut where it is longer."""
    line = " ".join(text.split())
    return line if len(line) <= characters else f"{line[: characters - 3]}..."


def _say(text: str) -> None:
    results.print(text, markup=False, highlight=False, soft_wrap=True)


def _print_table(columns: tuple[str, ...], rows: Iterable[list[str]]) -> None:
    table = Table(box=SIMPLE)
    for name in columns:
        table.add_column(name, justify="right" if name in RIGHT else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # what items hold is no markup
    results.print(table)
