"""The page, whole: what is read, what is drawn, and the template that holds it."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

from zpd_ray.errors import ZpdError
from zpd_ray.report.page.cautions import warnings
from zpd_ray.report.page.drawing import Drawing
from zpd_ray.report.page.figures import SECTIONS, Figure, costs_so_far, figures, metrics_of
from zpd_ray.report.page.rendering import render
from zpd_ray.report.page.sample import KINDS, TEXTS, cut, shown
from zpd_ray.report.page.tally import Tally, looked_at, take_stock
from zpd_ray.report.suspects import suspects
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import CONFIG, FIT, MANIFEST, POOL, REPORT, SELECT, StageFiles
from zpd_ray.rundir.records import load_fit, load_selection

WIDTHS = {"wide": 520, "narrow": 330}  # pixels of a plot, for a screen and for a phone
ITEMS, SEATS = 600, 24  # items on the page, and of each kind at a stage, about
ITEMS_BYTES, TEXT_BYTES = 2_500_000, 2000  # of all texts together, and of one
SUSPECTS, SUSPECT_BYTES = 20, 300  # items in the table of suspects, and of each text in it


def write_page(run: Run, into: str | None = None) -> str:
    """Write the page of a run: report.html in its directory, or a local file; where it is.

    Raises ZpdError when nothing is fitted yet, or the file cannot be written.
    """
    content = page(run).encode(errors="replace")
    if into is None:
        run.store.write_bytes(REPORT, content)
        return run.store.path(REPORT)
    try:
        Path(into).write_bytes(content)
    except OSError as problem:
        raise ZpdError(f"cannot write the report to {into}: {problem}; give another place") from None
    return into


def page(run: Run) -> str:
    """The page as text: some 1 MB, whatever the pool."""
    drawing = Drawing()
    fitted = [stage for stage in range(run.config.stages) if run.finished(stage, FIT)]
    if not fitted:
        raise ZpdError(
            f"the run in {run.store.root} has no finished fit yet, so there is nothing to report; take it on "
            "with `zpd-ray fit` or `zpd-ray run`"
        )
    seats = max(2, min(SEATS, ITEMS // (len(KINDS) * len(fitted))))
    fits = [load_fit(run.store, stage) for stage in fitted]
    groups, tallies, samples = take_stock(run, fits, seats)
    most = seats * len(KINDS) * len(fitted) * len(TEXTS)
    items = shown(run, samples, min(TEXT_BYTES, ITEMS_BYTES // most))
    return render(
        "page.html.j2",
        name=run.store.root,
        warnings=warnings(run, tallies),
        facts=_facts(run, tallies),
        sections=_sections(figures(run, groups, tallies), drawing),
        suspects=_suspects(run, looked_at(run, len(fits))),
        items=items,
        kinds=[kind for kind in KINDS if any(item.kind == kind for item in items)],
        stages=fitted,
        config=run.store.read_bytes(CONFIG).decode(),
        versions=_versions(run.store.read_json(MANIFEST)),
    )


def _facts(run: Run, tallies: list[Tally]) -> list[tuple[str, str]]:
    """The run in a few figures."""
    last, metrics = tallies[-1].fit.ability, metrics_of(run)
    first = last.stages[0]
    right = [of.accuracy for of in metrics.values() if of.accuracy is not None]
    done = [tally.fit.stage for tally in tallies if run.finished(tally.fit.stage, SELECT)]
    chosen = [load_selection(run.store, StageFiles(stage).selection()) for stage in done]
    cost = costs_so_far(run)
    found = [
        ("method", run.config.select.method),
        ("pool", f"{run.store.read_json(f'{POOL}.json')['items']:,} items"),
        ("stages", f"{len(tallies)} of {run.config.stages}"),
        ("selected", f"{sum(each.selected for each in chosen):,} items"),
        ("ability theta", f"{first.theta:z.2f} to {last.theta:z.2f} +- {last.se:z.2f}"),
    ]
    if right:
        found.append(("accuracy", f"{right[0]:.3f} to {right[-1]:.3f}"))
    if cost:
        found.append(("selecting", f"{sum(each.selecting_seconds for each in cost):,.0f} s"))
        found.append(("training", f"{sum(each.training_seconds for each in cost):,.0f} s"))
    return found


def _sections(found: list[Figure], drawing: Drawing) -> list[dict[str, Any]]:
    """Figures by section, drawn in both widths."""
    from markupsafe import Markup

    def drawn(figure: Figure) -> dict[str, Any]:
        draw = figure.draw
        plots = {name: Markup(drawing.svg(draw(width))) for name, width in WIDTHS.items()} if draw else {}
        return {"title": figure.title, "note": figure.note, "table": figure.table, "plots": plots}

    by_section = groupby(found, key=lambda figure: figure.section)
    return [
        {"title": title, "note": SECTIONS[title], "figures": [drawn(each) for each in own]}
        for title, own in by_section
    ]


def _suspects(run: Run, parts: list[str]) -> list[list[str]]:
    """Rows of the table: item, score, evidence, prompt, reference; none where items have no references."""
    if run.config.prompts_alone:
        return []
    return [
        [
            cut(each.item["item_id"], SUSPECT_BYTES),
            f"{each.score:.1f}",
            each.why,
            cut(each.item["messages"][-1]["content"] or "", SUSPECT_BYTES),
            cut(each.item["response"] or each.item["response_more"] or "", SUSPECT_BYTES),
        ]
        for each in suspects(run, SUSPECTS, parts=parts).rows
    ]


def _versions(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    engine = {f"engine {name}": value for name, value in manifest.get("engine", {}).items()}
    plain = {"seed": manifest["seed"], "python": manifest["python"]}
    return [(name, str(value)) for name, value in (plain | manifest["versions"] | engine).items()]
