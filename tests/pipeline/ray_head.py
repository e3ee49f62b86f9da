"""A Ray cluster as an operator starts one: ``ray start --head`` with token authentication, on loopback."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.pipeline.processes import ROOT

START_SECONDS = 120
# Tests that a shell runs in the background inherit that Ctrl-C is ignored; a user at a terminal has it.
MAIN = """
import signal
from zpd_ray.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
# The commands of one user, one after the other, in a process that has imported what they need: a line of JSON
# asks (arguments, variables), a line tells (exit code, stdout, stderr).
USER = """
import json, os, sys
from typer.testing import CliRunner
from zpd_ray.cli.app import app

told = sys.stdout
for line in sys.stdin:
    arguments, variables = json.loads(line)
    done = CliRunner().invoke(app, arguments, env=variables)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    print(json.dumps([done.exit_code, done.stdout, done.stderr]), file=told, flush=True)
"""
PORTS = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
    "ray-client-server-port",
    "node-manager-port",
    "object-manager-port",
)


@dataclass(frozen=True)
class Head:
    """A running cluster of one node."""

    address: str  # of the dashboard
    token: str
    outside: dict[str, str]  # environment of somebody who has no token
    inside: dict[str, str]  # and of somebody who has it
    user: subprocess.Popen[str]  # somebody who has it, at work

    def command(self, *arguments: str) -> list[str]:
        """``zpd-ray ... --address`` of this cluster."""
        return [sys.executable, "-c", MAIN, *arguments, "--address", self.address]

    def call(self, *arguments: str, address: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """The command to its end with the token, and ``env`` on top; ``address``: another, or "none"."""
        given = [] if address == "none" else ["--address", address or self.address]
        assert self.user.stdin is not None
        assert self.user.stdout is not None
        self.user.stdin.write(json.dumps([[*arguments, *given], env]) + "\n")
        self.user.stdin.flush()
        return subprocess.CompletedProcess(arguments, *json.loads(self.user.stdout.readline()))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]


@contextmanager
def ray_head(cpus: int) -> Iterator[Head]:
    """Started, and killed with all its processes at the end."""
    place = Path(tempfile.mkdtemp(prefix="zr-", dir="/tmp"))  # paths of sockets must be short
    token, ports = secrets.token_hex(32), dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    outside = clean | {"PYTHONPATH": str(ROOT), "HOME": str(place), "RAY_USAGE_STATS_ENABLED": "0"}
    outside["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{outside['PATH']}"
    inside = outside | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    options = ["--block", f"--num-cpus={cpus}", "--dashboard-host=127.0.0.1", f"--temp-dir={place}/ray"]
    options += [f"--{name}={port}" for name, port in ports.items()]
    with open(place / "log", "wb") as log:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("ray")), "start", "--head", *options],
            env=inside,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    user = subprocess.Popen([sys.executable, "-c", USER], env=inside, text=True, **pipes)
    head = Head(f"http://127.0.0.1:{ports['dashboard-port']}", token, outside, inside, user)
    try:
        _wait_for_jobs_api(head, process, place / "log")
        yield head
    finally:
        user.communicate(timeout=60)
        _kill_tree(process)
        shutil.rmtree(place, ignore_errors=True)


def _wait_for_jobs_api(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    asked = urllib.request.Request(
        f"{head.address}/api/jobs/", headers={"Authorization": f"Bearer {head.token}"}
    )
    deadline = time.monotonic() + START_SECONDS
    while True:
        with suppress(OSError, urllib.error.URLError), urllib.request.urlopen(asked, timeout=5) as answer:
            if answer.status == 200:
                return
        told = log.read_text()
        assert process.poll() is None, told
        assert time.monotonic() < deadline, told
        time.sleep(0.2)


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Ours alone: other Rays may run on this machine. Parents first, so that none replaces its child."""
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for each in tree:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait(timeout=60)
    psutil.wait_procs(tree, timeout=60)
