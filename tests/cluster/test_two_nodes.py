"""two_nodes.sh for real: two nodes on this machine, seen with the token, refused without, stopped alone."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.pipeline.conftest import simulated_values

SCRIPT = Path(__file__).resolve().parents[2] / "cluster" / "two_nodes.sh"
# The script calls `ray`, which lies beside the interpreter: nobody need have activated its environment.
PATHS = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the script reads /proc")

CLIENT = """
import json, sys, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
nodes = {node["Labels"]["zpd-ray"]: node for node in ray.nodes() if node["Alive"]}
task = ray.remote(lambda: ray.get_runtime_context().get_node_id())
where = task.options(label_selector={"zpd-ray": "score"}).remote()
print(json.dumps({
    "cpus": {role: node["Resources"]["CPU"] for role, node in nodes.items()},
    "address": nodes["train"]["NodeManagerAddress"],
    "ran": {node["NodeID"]: role for role, node in nodes.items()}[ray.get(where)],
}))
"""


@dataclass
class Cluster:
    """Places and ports of a cluster that the script makes."""

    place: Path
    base: int

    @property
    def state(self) -> Path:
        return self.place / "state"

    @property
    def token(self) -> Path:
        return self.state / "token"

    def script(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PATH": PATHS, "ZPD_RAY_STATE": str(self.state)}
        environment["RAY_AUTH_TOKEN_PATH"] = str(self.token)
        # No pipes: Ray's processes would hold them open.
        with (self.place / "said").open("w+") as said:
            done = subprocess.run(
                [SCRIPT, *arguments], env=environment, stdout=said, stderr=said, timeout=180, text=True
            )
            said.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, said.read())

    def client(self, program: str = CLIENT, **variables: str) -> subprocess.CompletedProcess[str]:
        """A program that joins the cluster, with these variables of Ray's authentication."""
        environment = {name: v for name, v in os.environ.items() if not name.startswith("RAY_AUTH")}
        # Two attempts instead of twenty, a second apart, where the head does not let it in.
        environment |= {"RAY_NUM_REDIS_GET_RETRIES": "2"} | variables
        command = [sys.executable, "-c", program, f"127.0.0.1:{self.base}"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    def processes(self) -> list[psutil.Process]:
        """All that belongs to the sessions in which the script started the nodes."""
        sessions = {int(file.read_text().split()[0]) for file in self.state.glob("*.pid")}
        return [p for p in psutil.process_iter() if _session(p) in sessions]


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _free_base() -> int:
    """The first of 2,000 ports, the fixed ones among them free, below those that the system deals out."""
    bases = [base for base in range(11_000, 31_000, 2_000)]
    random.shuffle(bases)
    fixed = [0, 1, *range(500, 510), *range(1_000, 1_010)]
    return next(base for base in bases if all(_is_free(base + offset) for offset in fixed))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Ray's sockets lie under it, and a socket's path is short: not pytest's.
    place = Path(tempfile.mkdtemp(prefix="zr-", dir="/tmp"))
    made = Cluster(place, _free_base())
    small = ["--object-store", "80000000"]
    base = made.base
    try:
        head = made.script(
            *("head", "--role", "train", "--cpus", "2", "--temp-dir", str(place / "ray"), *small),
            *("--port", str(base), "--dashboard-port", str(base + 1), "--port-base", str(base + 500)),
        )
        assert head.returncode == 0, head.stdout
        ports = ["--port-base", str(base + 1_000)]
        worker = made.script("worker", f"127.0.0.1:{base}", "--role", "score", "--cpus", "2", *small, *ports)
        assert worker.returncode == 0, worker.stdout
        yield made
    finally:
        made.script("stop")
        shutil.rmtree(place, ignore_errors=True)


def test_both_nodes_are_there_and_labels_place_work(cluster: Cluster) -> None:
    seen = cluster.client(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(cluster.token))
    assert seen.returncode == 0, seen.stderr
    answer = json.loads(seen.stdout)
    assert answer["cpus"] == {"train": 2.0, "score": 2.0}
    assert answer["ran"] == "score"
    if not answer["address"].startswith("127."):
        with socket.socket() as probe, pytest.raises(OSError, match="refused"):
            probe.connect((answer["address"], cluster.base + 1))  # the dashboard is on loopback alone


def test_an_actor_that_fits_on_no_node_is_refused_though_the_sum_is_enough(
    cluster: Cluster, tmp_path: Path
) -> None:
    asked = {"address": f"127.0.0.1:{cluster.base}", "cpus_per_actor": 3}
    program = f"""
from zpd_ray.config_file import validate
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.rundir import Run, Store
config = validate({simulated_values(tmp_path, n=1, cluster=asked)!r})
try:
    with Session(Run(config, Store(config.output))):
        print("let in")
except ZpdError as error:
    print(error)
"""
    told = cluster.client(program, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(cluster.token))
    assert "asks for 1 with 3 CPUs and 0 GPUs each, on one node" in told.stdout, told.stderr
    assert "room for 0" in told.stdout


@pytest.mark.parametrize(
    "variables", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a guess"}]
)
def test_nobody_joins_without_the_token(cluster: Cluster, variables: dict[str, str]) -> None:
    refused = cluster.client(**variables)
    assert refused.returncode != 0
    assert "InvalidAuthToken" in refused.stderr


def test_the_dashboard_wants_the_token_too(cluster: Cluster) -> None:
    url = f"http://127.0.0.1:{cluster.base + 1}/api/version"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(url, timeout=10)
    bearer = {"Authorization": f"Bearer {cluster.token.read_text()}"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=bearer), timeout=10) as answer:
        assert "ray_version" in json.load(answer)


def test_the_token_is_for_its_owner_and_in_no_log(cluster: Cluster) -> None:
    token = cluster.token.read_text()
    assert len(token) >= 32
    assert cluster.token.stat().st_mode & 0o777 == 0o600
    logs = [*cluster.state.glob("*.log"), *(cluster.place / "ray").glob("session_2*/logs/**/*")]
    assert len(logs) > 5
    assert not [log for log in logs if log.is_file() and token in log.read_text(errors="replace")]
    for process in cluster.processes():
        assert token not in " ".join(process.cmdline())


def test_a_second_node_of_the_same_name_is_refused(cluster: Cluster) -> None:
    again = cluster.script("worker", f"127.0.0.1:{cluster.base}", "--role", "score")
    assert again.returncode == 2
    assert "'worker' is running" in again.stdout


def test_stop_ends_what_it_started_and_nothing_else(cluster: Cluster) -> None:
    ours = cluster.processes()
    assert {"raylet", "gcs_server"} <= {p.name() for p in ours}
    # What `ray stop` would take for a part of Ray: it goes by names.
    bystander = subprocess.Popen(["bash", "-c", "exec -a raylet/raylet sleep 120"], start_new_session=True)
    # A session of the recorded number that carries another mark is somebody else's.
    (cluster.state / "other.pid").write_text(f"{bystander.pid} head-1-2")
    try:
        assert cluster.script("stop").returncode == 0
        gone, alive = psutil.wait_procs(ours, timeout=5)
        assert (len(gone), alive) == (len(ours), [])
        assert bystander.poll() is None
        assert _is_free(cluster.base)
    finally:
        os.kill(bystander.pid, signal.SIGKILL)
        bystander.wait()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Example, two machines"),
        (["join"], "unknown command 'join'"),
        (["worker", "--role", "score"], "HEAD:PORT"),
        (["worker", "10.0.0.1:6379"], "--role"),
        (["worker", "10.0.0.1:6379", "--role", "both"], "'both'"),
        (["worker", "10.0.0.1:6379", "--role", "score"], "no token"),
        (["head", "--port", "80"], "'80'"),
        (["head", "--cpus"], "without a value"),
        (["head", "--temp-dir", "/tmp/" + "x" * 60], "40 characters"),
        (["stop", "--name", "nobody"], "'nobody'"),
    ],
)
def test_misuse_is_told_before_anything_starts(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = Cluster(tmp_path, 0).script(*arguments)
    assert done.returncode == 2
    assert says in done.stdout
    assert not list(tmp_path.glob("state/*.pid"))


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    made = Cluster(tmp_path, 0)
    made.state.mkdir()
    made.token.write_text("secret")
    made.token.chmod(0o644)
    refused = made.script("head")
    assert refused.returncode == 2
    assert "chmod 600" in refused.stdout
    assert "secret" not in refused.stdout


def test_help_teaches() -> None:
    shown = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0
    for option in ("--role", "--token", "--port-base", "two_nodes.sh stop", "scp"):
        assert option in shown.stdout
