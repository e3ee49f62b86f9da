"""The commands for a cluster elsewhere: submit a run, and look after the jobs that came of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from zpd_ray.cli.options import ConfigFile, Json, Overrides, Quiet, exit_code

app = typer.Typer()

Address = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="of the cluster's dashboard; without it $RAY_API_SERVER_ADDRESS, $RAY_ADDRESS, or "
        "http://127.0.0.1:8265",
    ),
]
Job = Annotated[str, typer.Argument(help="id of the job, as `zpd-ray status` lists it")]


@app.command()
def submit(
    config: ConfigFile,
    address: Address = None,
    overrides: Overrides = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="follow the log until the job ends")] = True,
    working_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="directory with code of yours (a grader), shipped without what its .gitignore names",
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="pass this variable of your environment to the job; Ray keeps it where all who have access "
            "to the cluster can read it; may be repeated",
        ),
    ] = None,
) -> None:
    """Run all stages on a Ray cluster, as a job that goes on when this machine sleeps.

    Shipped is the resolved config alone; add your code with --working-dir. zpd-ray must be installed on the
    nodes, and they must see pool, model and output under the paths of the config. Ctrl-C leaves the job
    running. The exit code is the job's; submitting again after a failure or a stop resumes.

    Example: `zpd-ray submit run.toml --address http://127.0.0.1:8265 --working-dir . --env HF_TOKEN`
    """

    def work() -> int:
        from zpd_ray.config_file import load_config
        from zpd_ray.pipeline.jobs import jobs

        loaded = load_config(str(config), overrides or ())
        return jobs.submit(loaded, address, working_dir, env or (), wait)

    sys.exit(exit_code(work))


@app.command()
def status(
    job: Annotated[str | None, typer.Argument(help="id of one job: tells its steps, too")] = None,
    address: Address = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """List the cluster's jobs of zpd-ray, or tell how far one of them is.

    Example: `zpd-ray status zpd-mine-1 --address http://127.0.0.1:8265`
    """

    def work() -> None:
        from zpd_ray.terminal import alive

        with alive("asking"):
            from zpd_ray.pipeline.jobs import view as jobs_view

            jobs_view.status(address, job)

    sys.exit(exit_code(work))


@app.command()
def logs(
    job: Job,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="until the job ends")] = False,
) -> None:
    """Print what a job has printed.

    Example: `zpd-ray logs zpd-mine-1 --follow`
    """

    def work() -> int:
        from zpd_ray.pipeline.jobs import jobs

        return jobs.logs(job, address, follow)

    sys.exit(exit_code(work))


@app.command()
def stop(job: Job, address: Address = None) -> None:
    """Stop a job. Submitting the same config again resumes it.

    Example: `zpd-ray stop zpd-mine-1`
    """

    def work() -> None:
        from zpd_ray.pipeline.jobs import jobs

        jobs.stop(job, address)

    sys.exit(exit_code(work))
