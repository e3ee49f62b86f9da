"""Three nodes in network namespaces of their own, so that the link of one can be cut."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

START_SECONDS = 120
HEAD, NODES, PORT = 1, (2, 3), 6379
# The head asks each node twice a second and gives it up after four seconds without an answer: as Ray's own
# half a minute, in little.
HEALTH = {"period_ms": 500, "timeout_ms": 500, "failure_threshold": 4, "initial_delay_ms": 1000}
# Seconds without a link: within that patience, and far beyond it.
CUTS = {"short cut": 1.0, "long cut": 15.0}


def permitted() -> bool:
    """Whether network namespaces can be made here."""
    if shutil.which("ip") is None:
        return False
    name = f"zpd-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
    return made.returncode == 0


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout


class LinkedNodes:
    """A head (1 CPU) and nodes 2 and 3 (2 CPUs each); a bridge in the head's namespace joins them."""

    def __init__(self) -> None:
        """Nothing is started yet."""
        self.place = Path(tempfile.mkdtemp(prefix="zr-", dir="/tmp"))  # paths of sockets must be short
        self.address = f"{_address(HEAD)}:{PORT}"
        self.token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.turn = deque(NODES)  # whose link is cut next

    def __enter__(self) -> LinkedNodes:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Ends everything that was started, and the namespaces."""
        for node in (*NODES, HEAD):
            with suppress(subprocess.CalledProcessError):  # it was not made
                self._sweep(node)
                _ip("netns", "delete", self._space(node))
        shutil.rmtree(self.place, ignore_errors=True)

    def _start(self) -> None:
        head = self._space(HEAD)
        _ip("netns", "add", head)
        _ip("-n", head, "link", "add", "bridge", "type", "bridge")
        _ip("-n", head, "address", "add", f"{_address(HEAD)}/24", "dev", "bridge")
        for device in ("lo", "bridge"):
            _ip("-n", head, "link", "set", device, "up")
        self._ray(HEAD, "--head", f"--port={PORT}", f"--temp-dir={self.place}/ray", "--num-cpus=1")
        for node in NODES:
            self._join(node)

    def command(self, command: list[str]) -> list[str]:
        """Run on the head, with the token."""
        variables = [f"{name}={value}" for name, value in self.token.items()]
        return self._inside(HEAD, ["env", *variables, *command])

    def strike(self, kind: str) -> bool:
        """Take the link of a node away for a while; a node that was given up meanwhile joins anew."""
        node = self.turn.popleft()
        self.turn.append(node)
        self._set_link(node, "down")
        time.sleep(CUTS[kind])
        self._set_link(node, "up")
        if kind == "long cut":
            self._wait_until_left(node)
            self._ray(node, f"--address={self.address}", "--num-cpus=2")
        return True

    def _set_link(self, node: int, state: str) -> None:
        _ip("-n", self._space(HEAD), "link", "set", f"to{node}", state)

    def _wait_until_left(self, node: int) -> None:
        """Until the node has ended what ran there, as a node does that the head has given up."""
        deadline = time.monotonic() + START_SECONDS
        while titles := [title for title in map(_title, self._pids(node)) if "ray::" in title]:
            assert time.monotonic() < deadline, f"node {node} was given up and still runs {titles}"
            time.sleep(0.2)
        self._sweep(node)  # a log monitor stays

    def _inside(self, node: int, command: list[str]) -> list[str]:
        return ["ip", "netns", "exec", self._space(node), *command]

    def _sweep(self, node: int) -> None:
        while pids := self._pids(node):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)

    def _space(self, node: int) -> str:
        return f"zpd-{os.getpid()}-{node}"

    def _pids(self, node: int) -> list[int]:
        return [int(pid) for pid in _ip("netns", "pids", self._space(node)).split()]

    def _join(self, node: int) -> None:
        space, head = self._space(node), self._space(HEAD)
        _ip("netns", "add", space)
        _ip("-n", head, "link", "add", f"to{node}", "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("-n", head, "link", "set", f"to{node}", "master", "bridge", "up")
        _ip("-n", space, "address", "add", f"{_address(node)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", space, "link", "set", device, "up")
        self._ray(node, f"--address={self.address}", "--num-cpus=2")

    def _ray(self, node: int, *options: str) -> None:
        """``ray start`` on a node: its processes stay."""
        ray = [str(Path(sys.executable).with_name("ray")), "start", f"--node-ip-address={_address(node)}"]
        small = ["--object-store-memory=100000000", "--include-dashboard=false", "--disable-usage-stats"]
        if node != HEAD:
            small = small[:1]
        health = {f"RAY_health_check_{name}": str(value) for name, value in HEALTH.items()}
        env = os.environ | health | self.token
        # No pipes: Ray's processes would hold them open.
        with (self.place / f"node{node}.log").open("w+") as said:
            done = subprocess.run(
                self._inside(node, [*ray, *options, *small]),
                env=env, stdout=said, stderr=said, timeout=START_SECONDS, check=False,
            )  # fmt: skip
            said.seek(0)
            assert done.returncode == 0, said.read()


def _title(pid: int) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):  # it ended since it was listed
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def _address(node: int) -> str:
    return f"10.231.0.{node}"
