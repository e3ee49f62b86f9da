"""How far jobs are: the cluster's list, and the steps that a run directory proves finished."""

from __future__ import annotations

from datetime import datetime, timedelta

from ray.job_submission import JobDetails
from rich.box import SIMPLE
from rich.table import Table

from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.jobs.client import OUTPUT_KEY, Cluster
from zpd_ray.rundir.layout import EVALUATE
from zpd_ray.rundir.records import Event, load_events, load_metrics
from zpd_ray.rundir.store import Store
from zpd_ray.terminal import results, say


def status(address: str | None, job_id: str | None) -> None:
    """Print all jobs of zpd-ray on the cluster, or one with its steps."""
    cluster = Cluster(address)
    jobs = cluster.jobs() if job_id is None else [cluster.job(job_id)]
    if not jobs:
        say(f"no jobs of zpd-ray at {cluster.address}; `zpd-ray submit run.toml` makes one")
        return
    results.print(_job_table(jobs))
    if job_id is not None:
        _print_steps(_output(jobs[0]))


def _output(job: JobDetails) -> str:
    return (job.metadata or {}).get(OUTPUT_KEY, "")


def _job_table(jobs: list[JobDetails]) -> Table:
    table = Table(box=SIMPLE)
    table.add_column("job", no_wrap=True)
    for column in ("state", "since", "took", "output"):
        table.add_column(column, overflow="fold")
    for job in jobs:
        code = f" ({job.driver_exit_code})" if job.driver_exit_code else ""
        table.add_row(
            str(job.submission_id), f"{job.status.lower()}{code}", _time(job), _took(job), _output(job)
        )
    return table


def _time(job: JobDetails) -> str:
    return f"{datetime.fromtimestamp((job.start_time or 0) / 1000):%Y-%m-%d %H:%M}"


def _took(job: JobDetails) -> str:
    end = job.end_time / 1000 if job.end_time else datetime.now().timestamp()
    return str(timedelta(seconds=max(0, round(end - (job.start_time or 0) / 1000))))


def _print_steps(output: str) -> None:
    try:
        store = Store(output)
        steps = [event for event in load_events(store) if event.seconds is not None]
    except (OSError, ZpdError) as problem:  # a bucket or a disk that only the cluster has access to
        say(f"the run directory {output} cannot be read from here: {problem}")
        return
    if not steps:
        say(f"no finished step in {output}, as seen from here")
        return
    table = Table(box=SIMPLE)
    for column in ("stage", "finished", "at", "took", "with"):
        table.add_column(column)
    for event in steps:
        took = str(timedelta(seconds=round(event.seconds or 0.0)))
        at = f"{datetime.fromtimestamp(event.at):%m-%d %H:%M:%S}"
        stage = "" if event.stage is None else str(event.stage)
        table.add_row(stage, event.step, at, took, _result(store, event))
    results.print(table)


def _result(store: Store, event: Event) -> str:
    """What the step came to, in a word or two."""
    told = event.details
    if "theta" in told:
        return f"theta {told['theta']:.2f} +- {told['theta_se']:.2f}"
    if "selected" in told:
        return f"{told['selected']:,} items, {told['tokens']:,} tokens"
    if event.step == EVALUATE.name:
        accuracy = load_metrics(store, event.stage).accuracy
        return "" if accuracy is None else f"accuracy {accuracy:.3f}"
    return ""
