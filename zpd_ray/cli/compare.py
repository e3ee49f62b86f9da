"""The command that runs methods beside one another."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from zpd_ray.cli.interrupts import ended_by_signals
from zpd_ray.cli.options import Json, Overrides, Quiet, before_ray, exit_code

app = typer.Typer()


@app.command()
def compare(
    comparison: Annotated[
        Path, typer.Argument(help="TOML file that describes the comparison", metavar="COMPARE.TOML")
    ],
    overrides: Overrides = None,
    table: Annotated[
        bool, typer.Option("--table", help="make no runs: the table of those that are finished")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Run selection methods beside one another: same pool, model and budgets, several seeds, tuned alike.

    Ends with tables of accuracy against random, with intervals, of cost, and of what was picked. They lie in
    the comparison's output, too. Running it again makes the runs that are missing.

    Example: `zpd-ray compare examples/quickstart/compare.toml --set seeds=[0] --set budgets=[0.3]`
    """

    def work() -> int:
        before_ray()
        from zpd_ray.terminal import alive, show

        with alive("starting"):
            from zpd_ray.compare.configs import read_configs
            from zpd_ray.compare.file import load_comparison
            from zpd_ray.compare.plan import Plan
            from zpd_ray.compare.show import draw

            asked = load_comparison(str(comparison), overrides)
            plan = Plan(asked, read_configs(asked))
            failed = {}
            if not table:
                from zpd_ray.pipeline.compare.running import make_runs

                failed = make_runs(plan)
            from zpd_ray.compare.writing import write_result

            show(write_result(plan, failed), draw)
        return 2 if failed else 0

    with ended_by_signals():
        code = exit_code(work)
    sys.exit(code)
