"""A Ray of our own: who can reach it, who can read its files, and what is left of it.

One process has a session that fails. What is left of one that ends well: tests/pipeline/ingest/test_hub.py.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import simulated_values
from tests.pipeline.processes import call

CODE = """
import json, os, sys
from pathlib import Path
import psutil, ray
from zpd_ray.config_file import validate
from zpd_ray.errors import ZpdError
from zpd_ray.engines import ModelRef
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.ray_folder import ray_logs
from zpd_ray.rundir import Run, Store

def listening():
    own = psutil.Process()
    for process in [own, *own.children(recursive=True)]:
        for each in process.net_connections(kind="inet"):
            if each.status == psutil.CONN_LISTEN:
                yield process.name(), each.laddr.ip

config = validate(json.loads(sys.argv[1]))
before, told = dict(os.environ), {}
try:
    with Session(Run(config, Store(config.output))) as session:
        session.scorers(ModelRef("none"))
        said = ray.get(ray.remote(ray_logs).remote())
        logs = said.rpartition(" ")[2]
        told |= {
            "said": [ray_logs(), said],
            "logs": os.path.realpath(logs),
            "modes": {str(each): each.stat().st_mode & 0o777 for each in Path(logs).parents},
            "cpus": ray.cluster_resources()["CPU"],
            "listening": sorted(set(listening())),
            "session": ray._private.worker._global_node.get_session_dir_path(),
        }
        raise ZpdError("and then it fails")
except ZpdError as error:
    told["error"] = str(error)
told["over"] = not ray.is_initialized()
told["environment"] = {k: v for k, v in os.environ.items() if before.get(k) != v}
told["after"] = ray_logs()
told["left"] = os.listdir(os.environ["RAY_TMPDIR"])
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Where Ray's folders are to lie, beside the home of a user who had no Ray before."""
    with tempfile.TemporaryDirectory(prefix="zr-", dir="/tmp") as directory:  # paths of sockets must be short
        yield Path(directory)


@pytest.fixture(scope="module")
def done(place: Path) -> subprocess.CompletedProcess[str]:
    values = simulated_values(place, n=40, cluster={"actors": 2})
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    env = clean | {"RAY_TMPDIR": str(place / "t"), "HOME": str(place / "home")}
    ended = call([sys.executable, "-c", CODE, json.dumps(values)], env=env)
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.fixture(scope="module")
def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What the process saw of itself and of Ray."""
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_server_listens_on_loopback_alone(told: dict[str, Any]) -> None:
    """All of Ray's, with actors at work.

    Not looked at are train workers: worker 0 has a server of torch (TCPStore, by which the workers find each
    other) that listens on all interfaces, for which neither Ray Train nor torch has a setting.
    """
    names = {name for name, _ in told["listening"]}
    assert {"gcs_server", "raylet", "ray::DashboardAgent", "ray::RuntimeEnvAgent"} <= names
    assert any("Scorer" in name for name in names)
    for name, address in told["listening"]:
        ip = ipaddress.ip_address(address)
        assert (getattr(ip, "ipv4_mapped", None) or ip).is_loopback, (name, address)


def test_it_has_more_logical_cpus_than_cores_and_ends_with_the_session(told: dict[str, Any]) -> None:
    """Actors and tasks take turns on a machine of our own."""
    assert told["cpus"] == 2 + (os.cpu_count() or 1)
    assert told["over"]


def test_nobody_else_gets_into_the_folder(told: dict[str, Any], place: Path) -> None:
    """Ray's own directories are open to all, so one above them has to be closed."""
    assert Path(told["logs"]).is_relative_to(told["session"])
    folder = Path(told["said"][0].rpartition(" ")[2]).parents[2]
    assert folder.parent == place / "t"
    assert told["modes"][str(folder)] == 0o700


def test_nobody_else_can_read_the_token_that_ray_makes(told: dict[str, Any], place: Path) -> None:
    assert (place / "home/.ray/auth_token").stat().st_mode & 0o777 == 0o600


def test_ray_s_processes_know_where_its_logs_are_and_others_do_not(told: dict[str, Any]) -> None:
    here, in_a_worker = told["said"]
    assert here == in_a_worker
    assert here.startswith("the Ray logs in /")
    assert {"ZPD_RAY_LOGS", "RAY_idle_worker_killing_time_threshold_ms"}.isdisjoint(told["environment"])


def test_the_folder_of_a_run_that_failed_stays_and_is_named(
    told: dict[str, Any], done: subprocess.CompletedProcess[str], place: Path
) -> None:
    assert told["error"] == "and then it fails"
    (left,) = told["left"]
    logs = place / "t" / left / "r/session_latest/logs"
    assert done.stderr.splitlines().count(f"Ray's logs of this run are kept in {logs}") == 1
    assert list(logs.glob("worker-*"))
