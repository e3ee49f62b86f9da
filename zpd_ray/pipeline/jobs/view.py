"""How far jobs are: the cluster's list, and the steps that a run directory proves finished."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ray.job_submission import JobDetails
from rich.box import SIMPLE
from rich.table import Table

from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.jobs.client import OUTPUT_KEY, Cluster
from zpd_ray.rundir.layout import EVALUATE
from zpd_ray.rundir.records import Event, load_events, load_metrics
from zpd_ray.rundir.store import Store
from zpd_ray.terminal import results, say, show, warn


@dataclass(frozen=True)
class JobRow:
    """A job.

    started: seconds since 1970. seconds: that it took, or has taken so far. exit_code: None while it runs,
    or where Ray knows none.
    """

    job: str
    state: str
    started: float
    seconds: float
    exit_code: int | None
    output: str


@dataclass(frozen=True)
class StepRow:
    """A finished step of a run. stage: None where it is of none. finished: seconds since 1970."""

    stage: int | None
    step: str
    finished: float
    seconds: float
    result: str


@dataclass(frozen=True)
class Status:
    """Jobs of a cluster. steps: of the one job that was asked for; None for a list, or where unreadable."""

    address: str
    jobs: list[JobRow]
    steps: list[StepRow] | None


def status(address: str | None, job_id: str | None) -> None:
    """Show all jobs of zpd-ray on the cluster, or one with its steps."""
    cluster = Cluster(address)
    jobs = [_row(job) for job in (cluster.jobs() if job_id is None else [cluster.job(job_id)])]
    steps = None if job_id is None else _steps(jobs[0].output)
    show(Status(cluster.address, jobs, steps), _draw)


def _row(job: JobDetails) -> JobRow:
    started = (job.start_time or 0) / 1000
    end = job.end_time / 1000 if job.end_time else datetime.now().timestamp()
    return JobRow(
        job=str(job.submission_id),
        state=str(job.status).lower(),
        started=started,
        seconds=max(0.0, end - started),
        exit_code=job.driver_exit_code,
        output=(job.metadata or {}).get(OUTPUT_KEY, ""),
    )


def _steps(output: str) -> list[StepRow] | None:
    try:
        store = Store(output)
        return [_step(store, event) for event in load_events(store) if event.seconds is not None]
    except (OSError, ZpdError) as problem:  # a bucket or a disk that only the cluster has access to
        warn(f"the run directory {output} cannot be read from here: {problem}")
        return None


def _step(store: Store, event: Event) -> StepRow:
    return StepRow(event.stage, event.step, event.at, event.seconds or 0.0, _result(store, event))


def _draw(status: Status) -> None:
    if not status.jobs:
        say(f"no jobs of zpd-ray at {status.address}; `zpd-ray submit run.toml` makes one")
        return
    table = Table(box=SIMPLE)
    table.add_column("job", no_wrap=True)
    for column in ("state", "since", "took", "output"):
        table.add_column(column, overflow="fold")
    for job in status.jobs:
        code = f" ({job.exit_code})" if job.exit_code else ""
        since = f"{datetime.fromtimestamp(job.started):%Y-%m-%d %H:%M}"
        table.add_row(job.job, f"{job.state}{code}", since, _took(job.seconds), job.output)
    results.print(table)
    if status.steps:
        _draw_steps(status.steps)
    elif status.steps is not None:
        say(f"no finished step in {status.jobs[0].output}, as seen from here")


def _draw_steps(steps: list[StepRow]) -> None:
    table = Table(box=SIMPLE)
    for column in ("stage", "finished", "at", "took", "with"):
        table.add_column(column)
    for step in steps:
        at = f"{datetime.fromtimestamp(step.finished):%m-%d %H:%M:%S}"
        stage = "" if step.stage is None else str(step.stage)
        table.add_row(stage, step.step, at, _took(step.seconds), step.result)
    results.print(table)


def _took(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


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
