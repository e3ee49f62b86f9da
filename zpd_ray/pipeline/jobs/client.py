"""Reaching the job API of a Ray cluster, and telling in one sentence why it cannot be reached."""

from __future__ import annotations

import http.client
import ipaddress
import json
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from zpd_ray.errors import ZpdError
from zpd_ray.terminal import warn

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # Ray's own order
PROBE_SECONDS = 10.0  # Ray's client has no time limit
TOKEN_PLACES = "RAY_AUTH_TOKEN_PATH (a file), RAY_AUTH_TOKEN or ~/.ray/auth_token"

# Loggers of Ray that tell of packages and sockets.
TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
# What lets ``zpd-ray status`` know its own jobs; values of metadata are text.
VERSION_KEY, OUTPUT_KEY = "zpd-ray", "zpd-ray output"


class Cluster:
    """The jobs of zpd-ray on one Ray cluster. Every method raises ZpdError when the cluster refuses."""

    def __init__(self, address: str | None) -> None:
        """``address``: of the dashboard; None takes Ray's environment variables, or this machine."""
        given = _given(address)
        if given.startswith("http"):
            _probe(given)
        # Ray's client prefers its environment variables to the address that it is given.
        with _telling(given), _environment(VARIABLES[0], given):
            self.client = JobSubmissionClient(given)
        self.address = self.client.get_address()
        _warn_of_open_ports(self.address)
        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """``with cluster.telling(): cluster.client...`` turns failures of the connection into sentences."""
        with _telling(self.address):
            yield

    def jobs(self) -> list[JobDetails]:
        """The cluster's jobs that zpd-ray has submitted, oldest first."""
        with self.telling():
            found = self.client.list_jobs()
        ours = [job for job in found if job.submission_id and VERSION_KEY in (job.metadata or {})]
        return sorted(ours, key=lambda job: (job.start_time or 0, job.submission_id))

    def job(self, job_id: str) -> JobDetails:
        """One of these jobs, as it is now."""
        jobs = self.jobs()
        for job in jobs:
            if job.submission_id == job_id:
                return job
        known = ", ".join(str(job.submission_id) for job in jobs[-5:])
        raise ZpdError(
            f"no job {job_id!r} of zpd-ray at {self.address}; "
            + (f"the latest are {known}" if known else "it has none yet")
            + "; `zpd-ray status` lists them"
        )


def _given(address: str | None) -> str:
    """The address to try: a URL, or what else Ray's variables may hold ("auto", host:port of the cluster)."""
    given = address or next(filter(None, (os.environ.get(name) for name in VARIABLES)), DEFAULT_ADDRESS)
    scheme, separator, _ = given.rpartition("://")
    if separator and scheme not in ("http", "https"):
        raise ZpdError(
            f"got the address {given!r}; expected that of the dashboard, http://HEAD:8265: give --address"
        )
    if address and not separator and address != "auto":
        given = f"http://{address}"
    return given.rstrip("/")


def _probe(address: str) -> None:
    """Refuse what is no Ray dashboard, soon."""
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=PROBE_SECONDS) as answer:
            version = json.load(answer)["ray_version"]
    except urllib.error.HTTPError as refusal:
        version = refusal.code in (401, 403)  # the client will tell what is missing
    except (KeyError, TypeError, ValueError, http.client.HTTPException):
        version = None
    except OSError as problem:
        raise ZpdError(_unreachable(address, getattr(problem, "reason", problem))) from None
    if not version:
        raise ZpdError(
            f"what answers at {address} is no Ray dashboard; expected the address that `ray start --head` "
            "prints as the dashboard's (port 8265 by default): give it as --address"
        )


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def _telling(address: str) -> Iterator[None]:
    try:
        yield
    except AuthenticationError as refusal:
        raise ZpdError(_refused(address, str(refusal))) from None
    except (ConnectionError, requests.RequestException, aiohttp.ClientError) as problem:
        raise ZpdError(_unreachable(address, problem)) from None
    except RuntimeError as problem:
        if not str(problem).startswith("Request failed with status code"):
            raise
        # Behind the code stands Ray's message, or a traceback that ends with it.
        told = str(problem).strip().splitlines()
        raise ZpdError(
            f"the Ray cluster at {address} could not do it: {told[-1] if len(told) > 1 else told[0]}"
        ) from None


def _refused(address: str, told: str) -> str:
    if told.startswith("Authentication failed"):
        return (
            f"the Ray cluster at {address} refuses the token that it got; expected the one its nodes were "
            f"started with: put it in {TOKEN_PLACES}"
        )
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return (
            f"the Ray cluster at {address} wants a token and got none; set RAY_AUTH_MODE=token, and put the "
            f"cluster's token in {TOKEN_PLACES}"
        )
    return (
        f"RAY_AUTH_MODE is token and no token was found for {address}; put the cluster's token in "
        f"{TOKEN_PLACES}"
    )


def _unreachable(address: str, problem: object) -> str:
    return (
        f"no Ray dashboard answers at {address} ({problem}); check that the cluster is up and the address is "
        "right; a dashboard that listens on its own machine alone needs a tunnel, as in "
        "`ssh -L 8265:127.0.0.1:8265 HEAD`"
    )


def _warn_of_open_ports(address: str) -> None:
    host = urlsplit(address).hostname or ""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        local = False
    if not local and os.environ.get("RAY_AUTH_MODE") != "token":
        warn(
            f"{address} is not this machine and RAY_AUTH_MODE is not token: whoever reaches that "
            "port can run code there; set RAY_AUTH_MODE=token on every node and here"
        )
