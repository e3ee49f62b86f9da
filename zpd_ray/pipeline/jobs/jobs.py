"""Runs as jobs of a Ray cluster: submitted, followed, stopped.

The job is ``zpd-ray run run.toml`` on the head node, in a directory that holds the config and, where asked
for, the user's code; Ray puts that directory on the Python path of the job and of its workers. It ends with
the exit code of ``zpd-ray run``.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import requests
from ray.job_submission import JobDetails, JobStatus

from zpd_ray import __version__
from zpd_ray.config import Config
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.jobs.client import OUTPUT_KEY, VERSION_KEY, Cluster
from zpd_ray.pipeline.jobs.package import CONFIG, local_paths, package, variables
from zpd_ray.terminal import say
from zpd_ray.uris import without_options

ENTRYPOINT = f"zpd-ray run {CONFIG}"
# What shells answer for a command that is not there, and for processes that SIGINT and SIGTERM ended.
NO_COMMAND, INTERRUPTED, STOPPED = 127, 130, 143
PATIENCE = 300.0  # seconds without a connection, after which following is given up
STOP_SECONDS = 30.0  # Ray sends SIGTERM, and SIGKILL three seconds later
POLL = 1.0


def submit(
    config: Config, address: str | None, code: Path | None, env: Sequence[str], wait: bool = True
) -> int:
    """Run all stages as a job; its exit code, or 0 at once unless ``wait``.

    code: a directory to take along. env: names of variables to take along. Raises ZpdError when the cluster
    cannot be reached, or a job works on the same output.
    """
    passed, output = variables(env), _place(config.output)
    cluster = Cluster(address)
    _refuse_second(cluster, output)
    _tell_what_is_shared(config, code, passed)
    job_id = _next_id(cluster, output)
    with package(config, code) as directory, cluster.telling():
        cluster.client.submit_job(
            entrypoint=ENTRYPOINT,
            submission_id=job_id,
            runtime_env={"working_dir": directory, "env_vars": passed},
            metadata={VERSION_KEY: __version__, OUTPUT_KEY: output},
        )
    say(f"submitted {job_id} to {cluster.address}; {_ways(job_id, address)}")
    return _exit_code(cluster, job_id, address) if wait else 0


def _place(output: str) -> str:
    """One name for one place, however it was written."""
    return output.rstrip("/") if "://" in output else os.path.normpath(output)


def _refuse_second(cluster: Cluster, output: str) -> None:
    for job in cluster.jobs():
        if not job.status.is_terminal() and (job.metadata or {}).get(OUTPUT_KEY) == output:
            raise ZpdError(
                f"the job {job.submission_id} is working on {output}; follow it with "
                f"`zpd-ray logs {job.submission_id} --follow`, stop it with "
                f"`zpd-ray stop {job.submission_id}`, or give another output"
            )


def _tell_what_is_shared(config: Config, code: Path | None, passed: dict[str, str]) -> None:
    if keys := local_paths(config):
        say(
            f"note: {', '.join(keys)} {'is a file path' if len(keys) == 1 else 'are file paths'}: every node "
            "must see the same files there (shared storage), else give a URI such as s3://bucket/..."
        )
    if code is not None:
        say(f"shipping {code}, without what its .gitignore names")
    if passed:
        say(f"passing {', '.join(passed)}: who has access to the cluster can read the values there")


def _next_id(cluster: Cluster, output: str) -> str:
    """``zpd-NAME-N``, N counting the attempts at outputs of that name.

    Two who submit at the same time come to the same id, of which Ray takes one.
    """
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", without_options(output).rstrip("/").rpartition("/")[2])
    stem = f"zpd-{name.strip('-.') or 'run'}-"
    numbers = [re.fullmatch(rf"{re.escape(stem)}(\d+)", str(job.submission_id)) for job in cluster.jobs()]
    return f"{stem}{1 + max((int(found[1]) for found in numbers if found), default=0)}"


def _ways(job_id: str, address: str | None) -> str:
    to = f" --address {address}" if address else ""
    return (
        f"`zpd-ray logs {job_id} --follow{to}` follows it, `zpd-ray status {job_id}{to}` tells how far it "
        f"is, `zpd-ray stop {job_id}{to}` stops it"
    )


def _exit_code(cluster: Cluster, job_id: str, address: str | None) -> int:
    """Follow the job; the exit code that tells how it ended. Ctrl-C leaves it running."""
    try:
        with cluster.telling():
            job = _follow(cluster, job_id)
    except KeyboardInterrupt:
        say(f"\n{job_id} goes on without you; {_ways(job_id, address)}")
        return INTERRUPTED
    return _tell_end(job)


def _tell_end(job: JobDetails) -> int:
    code = job.driver_exit_code
    if job.status == JobStatus.SUCCEEDED:
        say(f"{job.submission_id} succeeded")
        return 0
    if job.status == JobStatus.STOPPED:
        say(f"{job.submission_id} was stopped; submitting the same config again resumes the run")
        return STOPPED
    if code is None:  # it did not come to run: Ray says why
        say(f"{job.submission_id} failed: {job.message}")
        return 1
    code = 128 - code if code < 0 else code  # ended by a signal
    say(f"{job.submission_id} failed (exit code {code}); submitting again resumes the run")
    if code == NO_COMMAND:
        say("zpd-ray was not found on the head node: install it there, on the PATH that Ray was started with")
    return code


def _follow(cluster: Cluster, job_id: str) -> JobDetails:
    """Print the job's log as it grows, until the job has ended; lost connections are taken up again."""
    printed, heard = 0, time.monotonic()
    while True:
        try:
            printed += asyncio.run(_print_log(cluster, job_id, printed))
            job = cluster.client.get_job_info(job_id)
            heard = time.monotonic()
            if job.status.is_terminal():
                return job
        except (ConnectionError, requests.RequestException, aiohttp.ClientError) as problem:
            if time.monotonic() - heard > PATIENCE:
                raise ZpdError(
                    f"lost the connection to {cluster.address} ({problem}); the job goes on: "
                    f"`zpd-ray logs {job_id} --follow` follows it"
                ) from None
        time.sleep(POLL)


async def _print_log(cluster: Cluster, job_id: str, skip: int) -> int:
    """Print what comes after the first ``skip`` characters, until the stream ends; how many were printed."""
    seen = 0
    try:
        async for text in cluster.client.tail_job_logs(job_id):
            sys.stdout.write(text[max(0, skip - seen) :])
            sys.stdout.flush()
            seen += len(text)
    except RuntimeError as problem:  # Ray's word for a stream that breaks off
        if "WebSocket" not in str(problem):
            raise
    return max(0, seen - skip)


def logs(job_id: str, address: str | None, follow: bool = False) -> int:
    """Print a job's log, and with ``follow`` what is still to come; the job's exit code then."""
    cluster = Cluster(address)
    cluster.job(job_id)
    if follow:
        return _exit_code(cluster, job_id, address)
    with cluster.telling():
        sys.stdout.write(cluster.client.get_job_logs(job_id))
    return 0


def stop(job_id: str, address: str | None) -> None:
    """Stop a job and wait until it has ended."""
    cluster = Cluster(address)
    if cluster.job(job_id).status.is_terminal():
        say(f"{job_id} had ended already ({cluster.job(job_id).status})")
        return
    with cluster.telling():
        cluster.client.stop_job(job_id)
    deadline = time.monotonic() + STOP_SECONDS
    while not (job := cluster.job(job_id)).status.is_terminal():
        if time.monotonic() > deadline:
            raise ZpdError(f"{job_id} is still {job.status} after {STOP_SECONDS:.0f} s; ask `zpd-ray status`")
        time.sleep(POLL)
    _tell_end(job)
