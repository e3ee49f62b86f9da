"""The commands for the items of a run: list what is selected, explain it, doubt it, take it elsewhere."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from zpd_ray.cli.options import Json, Quiet, exit_code
from zpd_ray.export import FORMATS

app = typer.Typer()

RunDirectory = Annotated[
    str, typer.Argument(metavar="RUN", help="run directory, a path or URI: the `output` of the run's config")
]
Method = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="a method of `select.beside`, in place of the one that is trained on"),
]
ALL = "all"


@app.command()
def show(
    run: RunDirectory,
    stage: Annotated[int | None, typer.Option(metavar="N", help="without it the last one")] = None,
    reason: Annotated[
        str | None, typer.Option(metavar="WORD", help="only zone, nearest, score or replay")
    ] = None,
    group: Annotated[str | None, typer.Option(metavar="NAME", help="only items of this group")] = None,
    p: Annotated[
        str | None, typer.Option("--p", metavar="FROM:TO", help="only items with such a p, as in 0.4:0.6")
    ] = None,
    method: Method = None,
    limit: Annotated[int, typer.Option(min=1, help="items to list, from the best on")] = 20,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """List what a stage has selected, the best first.

    Example: `zpd-ray show runs/mine --stage 0 --group algebra --p 0.4:0.6`
    """

    def work() -> None:
        from zpd_ray import terminal
        from zpd_ray.report.items import draw_selected, selected
        from zpd_ray.report.show import Filters, between
        from zpd_ray.rundir.begin import recorded_run

        filters = Filters(reason, group, None if p is None else between(p))
        terminal.show(selected(recorded_run(run), stage, method, filters, limit), draw_selected)

    sys.exit(exit_code(work))


@app.command()
def why(
    run: RunDirectory,
    items: Annotated[
        list[str],
        typer.Argument(metavar="ITEM...", help="ids, or places as FILE:ROW (the end of a path will do)"),
    ],
    stage: Annotated[int | None, typer.Option(metavar="N", help="without it all that are measured")] = None,
    method: Method = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Explain items, selected or not: what was measured at each stage, and what followed from it.

    Tells NLL, right responses, difficulty b, p, score, threshold and rank; of a row in quarantine, its fault.

    Example: `zpd-ray why runs/mine item-17 pool.jsonl:203`
    """

    def work() -> int:
        from zpd_ray import terminal
        from zpd_ray.report.items import draw_reasons, reasons
        from zpd_ray.rundir.begin import recorded_run

        told = reasons(recorded_run(run), items, stage, method)
        terminal.show(told, draw_reasons)
        for sentence in told.missing:
            terminal.warn(sentence)
        return 2 if told.missing else 0

    sys.exit(exit_code(work))


@app.command()
def suspects(
    run: RunDirectory,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="items to list, the most suspect first")] = 20,
    group: Annotated[str | None, typer.Option(metavar="NAME", help="only items of this group")] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """List items whose references may be wrong, with the evidence.

    They stay wrong where others of their difficulty become right, the model is sure of another token, or its
    responses agree on another answer.

    Example: `zpd-ray suspects runs/mine --top 50 --group algebra`
    """

    def work() -> None:
        from zpd_ray import terminal
        from zpd_ray.report.items import draw_suspects
        from zpd_ray.report.suspects import suspects as find
        from zpd_ray.rundir.begin import recorded_run

        terminal.show(find(recorded_run(run), top, group), draw_suspects)

    sys.exit(exit_code(work))


@app.command()
def export(
    run: RunDirectory,
    to: Annotated[
        str, typer.Option(metavar="FORMAT", help=f"{', '.join(FORMATS)}, or package.module:function of yours")
    ],
    into: Annotated[str, typer.Option(metavar="DIR", help="a new or an empty directory")],
    stage: Annotated[str, typer.Option(metavar="N|all", help="whose selection")] = ALL,
    method: Method = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="with stage, rank, reason, b, b_sd, p, score and pass rate")
    ] = False,
    extra: Annotated[
        bool, typer.Option("--extra", help="with the other columns of your rows, as JSON in `extra`")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write the selected items as another trainer reads them, in order of stage and rank.

    Example: `zpd-ray export runs/mine --to trl --into data/selected --stage 0 --scores`
    """

    def work() -> None:
        from zpd_ray.errors import ZpdError
        from zpd_ray.export.exporting import draw, export_selection
        from zpd_ray.rundir.begin import recorded_run
        from zpd_ray.terminal import show as show_result

        if stage != ALL and not stage.isdecimal():
            raise ZpdError(f"--stage got {stage!r}; expected the number of a stage, or {ALL}")
        number = None if stage == ALL else int(stage)
        show_result(export_selection(recorded_run(run), to, into, number, method, scores, extra), draw)

    sys.exit(exit_code(work))
