"""The command that writes a run as one page."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from zpd_ray.cli.options import Json, Quiet, exit_code

app = typer.Typer()


@app.command()
def report(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="run directory, a path or URI: the `output` of the run's config"),
    ],
    into: Annotated[
        str | None, typer.Option(metavar="FILE", help="without it report.html in the run directory")
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write a run as one HTML page that needs no network: plots, tables, warnings and a sample of items.

    Of a run that is not finished it shows what there is.

    Example: `zpd-ray report runs/mine --into mine.html`
    """

    def work() -> None:
        from zpd_ray.report.page import write_page
        from zpd_ray.rundir.begin import recorded_run
        from zpd_ray.terminal import show

        show({"report": write_page(recorded_run(run), into)}, lambda told: typer.echo(told["report"]))

    sys.exit(exit_code(work))
