"""The command that says what a run will take."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from zpd_ray.cli.interrupts import ended_by_signals
from zpd_ray.cli.options import ConfigFile, Json, Overrides, Quiet, before_ray, exit_code

app = typer.Typer()


@app.command()
def plan(
    config: ConfigFile,
    overrides: Overrides = None,
    ingest: Annotated[
        bool, typer.Option("--ingest", help="read the whole pool into the run directory first, and keep it")
    ] = False,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="that the longest timed batches take: more is more certain")
    ] = 5.0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Say what a run will take before it starts: items, tokens, time, GPU-hours, memory, and where it fits.

    Times the real engine on random items and a few real training steps, for each scope of measuring.

    Example: `zpd-ray plan run.toml --set cluster.actors=4`
    """

    def work() -> None:
        since = time.monotonic()
        before_ray()
        from zpd_ray.terminal import alive, show

        with alive("starting"):  # before what takes seconds to import
            from zpd_ray.config_file import load_config
            from zpd_ray.opening import open_run

            opened = open_run(load_config(str(config), overrides or ()))
            from zpd_ray.pipeline.plan.planning import make_plan
            from zpd_ray.plan.show import draw

            planned = make_plan(*opened, since, seconds, ingest)
            show(planned, draw)

    with ended_by_signals():
        code = exit_code(work)
    sys.exit(code)
