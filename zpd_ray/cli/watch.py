"""The command that shows a run as it goes on."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from zpd_ray.cli.options import Json, exit_code
from zpd_ray.cli.takeaway import RunDirectory

app = typer.Typer()


@app.command()
def watch(
    run: RunDirectory,
    once: Annotated[
        bool, typer.Option("--once", help="show it as it is now, and end with exit code 0")
    ] = False,
    json: Json = False,
) -> None:
    """Show how far a run is: steps, rates, time left; theta, accuracy and cost so far.

    Reads the run directory alone, from any terminal or machine, before, while or after the run is at work.
    Ends when the run does, with the exit code of the run's command: 0 done, else 1, 2 or 130; 2 for one that
    was killed. Ctrl-C ends watching, not the run. With --json, a line for every change.

    Example: `zpd-ray watch runs/mine`
    """

    def work() -> int:
        from zpd_ray.report.live.watching import watch as follow

        return follow(run, once, json)

    sys.exit(exit_code(work))
