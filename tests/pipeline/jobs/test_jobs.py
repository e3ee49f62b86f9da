"""Jobs on a real Ray with a token: submitted, refused, followed, left alone, stopped, resumed."""

from __future__ import annotations

import http.server
import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import tomli_w
from ray.job_submission import JobDetails, JobStatus

from tests.pipeline.conftest import simulated_values
from tests.pipeline.processes import Quickstart
from tests.pipeline.proxy import Proxy
from tests.pipeline.ray_head import Head, ray_head
from tests.pipeline.test_resume import EXACT, files_of
from zpd_ray.pipeline.jobs import jobs

SECRET = "sesame-2f81c"
WAIT_SECONDS = 180.0

# Waits for a file whose name comes by --env, and fails if what .gitignore names was shipped.
JUDGE = """
import os, time
from pathlib import Path

import helper.strict

def right(completion, answer):
    assert not Path(__file__).with_name("big.bin").exists(), "an ignored file was shipped"
    assert os.environ["ZPD_TEST_SECRET"] and "ZPD_TEST_OTHER" not in os.environ
    while not Path(os.environ["ZPD_TEST_GATE"]).exists():
        time.sleep(0.02)
    return helper.strict.same(completion, answer)
"""


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head(cpus=3) as started:
        yield started


@dataclass(frozen=True)
class World:
    """A small run with a grader of the user's own, which waits at a gate."""

    config: Path
    code: Path
    output: Path
    gate: Path

    def submit(self, *more: str) -> list[str]:
        flags = ("--working-dir", str(self.code), "--env", "ZPD_TEST_SECRET", "--env", "ZPD_TEST_GATE")
        return ["submit", str(self.config), *flags, *more]

    @property
    def env(self) -> dict[str, str]:
        return {"ZPD_TEST_SECRET": SECRET, "ZPD_TEST_GATE": str(self.gate), "ZPD_TEST_OTHER": "stays here"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    values = simulated_values(tmp_path, 400, output="runs/mine", stages=1)
    values |= {"pool": {"path": "pool.jsonl", "items_per_part": 100}}  # relative: to the config's directory
    values |= {"measure": {"grader": "judge:right"}}
    config, code = tmp_path / "run.toml", tmp_path / "code"
    config.write_text(tomli_w.dumps(values))
    (code / "helper").mkdir(parents=True)
    (code / "judge.py").write_text(JUDGE)
    (code / "helper/strict.py").write_text("def same(one, other):\n    return one == other\n")
    (code / "big.bin").write_bytes(b"0" * 1000)
    (code / "run.toml").write_text("stages = 'not the config of the run'\n")
    (code / ".gitignore").write_text("*.bin\n*.toml\n")
    return World(config, code, tmp_path / "runs/mine", tmp_path / "gate")


def wait_until(there: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not there.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{there} did not appear"
        time.sleep(0.1)


def assert_no_secret(*texts: str) -> None:
    for text in texts:
        assert SECRET not in text


def submit_over_a_line_that_breaks(head: Head, world: World) -> subprocess.CompletedProcess[str]:
    """While the job is at the gate, which opens when the line is there again."""
    proxy = Proxy(int(head.address.rpartition(":")[2]))
    arguments = replace(head, address=proxy.address).command(*world.submit())
    process = subprocess.Popen(
        arguments, env=head.inside | world.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    lines = [process.stdout.readline(), process.stdout.readline()]  # the log is being followed
    assert "Running entrypoint" in lines[1]
    assert proxy.cut() > 0
    world.gate.touch()
    # Not communicate(), which passes over what the lines above have brought into the buffer.
    stdout, stderr = process.stdout.read(), process.stderr.read()
    process.wait(timeout=WAIT_SECONDS)
    proxy.close()
    return subprocess.CompletedProcess(arguments, process.returncode, "".join(lines) + stdout, stderr)


def submitted(told: str) -> str:
    """The name of the job, as ``submit`` says it."""
    return told.partition("submitted ")[2].split()[0]


def assert_told_whole(head: Head, job: str, done: subprocess.CompletedProcess[str]) -> None:
    """That it succeeded, by every command that tells of a job; its log is what was followed."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{job} succeeded" in done.stderr
    assert "zpd, 1 stages" in done.stdout
    listed = head.call("status").stdout
    assert job in listed
    assert "succeeded" in listed
    steps = head.call("status", job).stdout
    told = json.loads(head.call("status", job, "--json").stdout)
    assert [each["job"] for each in told["jobs"]] == [job]
    assert told["jobs"][0]["state"] == "succeeded"
    assert [step["step"] for step in told["steps"] if step["stage"] == 0][:2] == ["measure", "fit"]
    assert "theta" in steps
    assert "40 items" in steps  # a tenth of 400
    log = head.call("logs", job).stdout
    assert "stage 0: theta" in log
    assert log == done.stdout  # though the connection broke: nothing lost, nothing twice
    assert_no_secret(listed, steps, log)


def test_a_run_is_submitted_and_followed_over_a_line_that_breaks(head: Head, world: World) -> None:
    done = submit_over_a_line_that_breaks(head, world)
    assert_told_whole(head, submitted(done.stderr), done)
    assert 'address = "auto"' in (world.output / "config.toml").read_text()
    assert_no_secret(done.stdout, done.stderr, *(path.read_text() for path in world.output.glob("*.json*")))


@pytest.mark.nightly
def test_a_run_is_submitted_left_alone_stopped_and_resumed(head: Head, world: World) -> None:
    process = subprocess.Popen(
        head.command(*world.submit()),
        env=head.inside | world.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    recorded = world.output / "config.toml"
    wait_until(recorded, process)  # the pool is there, the grader waits at the gate

    again = head.call(*world.submit("--no-wait"), **world.env)
    assert again.returncode == 2
    told = again.stderr
    assert f"is working on {world.output}" in told
    first = told.partition("the job ")[2].split()[0]

    assert process.stdout is not None
    told = process.stdout.readline()
    while "pool: 400 rows -> 400 items" not in told:  # the log comes some seconds late
        assert process.poll() is None, told
        told += process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, stderr = process.communicate(timeout=60)
    stdout = told + rest
    assert process.returncode == 130, stderr
    assert f"{first} goes on without you" in stderr
    assert f"zpd-ray stop {first} --address {head.address}" in stderr
    assert "output, pool.path are file paths: every node must see the same files" in stderr
    assert "running" in head.call("status", first).stdout

    stopped = head.call("stop", first)
    assert stopped.returncode == 0
    assert "submitting the same config again resumes" in stopped.stderr
    assert "ended already" in head.call("stop", first).stderr
    assert not (world.output / "stages/00/measured.json").exists()

    written = recorded.stat().st_mtime_ns
    done = submit_over_a_line_that_breaks(head, world)
    second = submitted(done.stderr)
    assert_told_whole(head, second, done)
    assert recorded.stat().st_mtime_ns == written  # resumed, not begun anew
    assert_no_secret(stdout, stderr, done.stdout, done.stderr, recorded.read_text())
    assert all(word in head.call("status").stdout for word in (first, "stopped", second, "succeeded"))


def test_an_error_on_the_far_side_is_told_here(head: Head, world: World) -> None:
    """The pool may be visible to the cluster alone, so that only the job can say that it is not there."""
    done = head.call(*world.submit("--set", "pool.path=elsewhere.jsonl"), **world.env)
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"zpd-ray: no such file or directory: '{world.config.parent}/elsewhere.jsonl'" in done.stdout
    assert "failed (exit code 2)" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    followed = head.call("logs", submitted(done.stderr), "--follow")
    assert followed.returncode == 2
    assert "no such file or directory" in followed.stdout


def test_a_config_with_an_error_is_refused_before_anything_is_sent(head: Head, world: World) -> None:
    done = head.call(*world.submit("--set", "stagse=2"), **world.env)
    assert done.returncode == 2
    assert "unknown key stagse; did you mean stages?" in done.stderr
    assert "submitted" not in done.stderr


def test_who_has_no_token_is_told_what_is_missing(head: Head, world: World) -> None:
    def refused(**env: str) -> str:
        done = subprocess.run(
            head.command("submit", str(world.config)),
            capture_output=True,
            text=True,
            timeout=120,
            env=head.outside | env,
        )
        assert done.returncode == 2
        assert done.stdout == ""
        assert len(done.stderr.strip().splitlines()) == 1
        return done.stderr

    assert "wants a token and got none; set RAY_AUTH_MODE=token" in refused()
    assert "no token was found" in refused(RAY_AUTH_MODE="token")
    wrong = refused(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
    assert "refuses the token that it got" in wrong
    assert not world.output.exists()


def test_the_address_is_taken_from_rays_variables_unless_given(head: Head) -> None:
    def status(address: str = "none", **env: str) -> subprocess.CompletedProcess[str]:
        return head.call("status", address=address, **env)

    assert status(RAY_ADDRESS=head.address).returncode == 0
    assert status(RAY_ADDRESS="http://127.0.0.1:9", RAY_API_SERVER_ADDRESS=head.address).returncode == 0
    assert status(head.address, RAY_API_SERVER_ADDRESS="http://127.0.0.1:9").returncode == 0
    assert "answers at http://127.0.0.1:9" in status(RAY_API_SERVER_ADDRESS="http://127.0.0.1:9").stderr


def ended(status: JobStatus, code: int | None) -> JobDetails:
    return JobDetails(
        type="SUBMISSION", submission_id="zpd-x-1", status=status, entrypoint="", driver_exit_code=code
    )


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (JobStatus.SUCCEEDED, 0, (0, "succeeded")),
        (JobStatus.FAILED, 3, (3, "exit code 3")),
        (JobStatus.FAILED, -9, (137, "exit code 137")),  # out of memory
        (JobStatus.FAILED, 127, (127, "zpd-ray was not found on the head node")),
        (JobStatus.FAILED, None, (1, "failed")),  # it was never started
        (JobStatus.STOPPED, None, (143, "was stopped")),
    ],
)
def test_how_a_job_ended_is_its_exit_code(
    status: JobStatus, code: int | None, told: tuple[int, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert jobs._tell_end(ended(status, code)) == told[0]
    assert told[1] in capsys.readouterr().err


def test_a_job_that_is_not_there(head: Head) -> None:
    for arguments in (("logs", "zpd-nosuch-1"), ("stop", "zpd-nosuch-1"), ("status", "zpd-nosuch-1")):
        done = head.call(*arguments)
        assert done.returncode == 2
        assert "no job 'zpd-nosuch-1' of zpd-ray" in done.stderr


@pytest.fixture
def web_server() -> Iterator[str]:
    """Something else that speaks HTTP."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_an_address_that_is_no_dashboard(head: Head, web_server: str) -> None:
    done = head.call("status", address="http://127.0.0.1:9")
    assert done.returncode == 2
    assert "no Ray dashboard answers at http://127.0.0.1:9" in done.stderr
    other = head.call("status", address=web_server)
    assert other.returncode == 2
    assert f"what answers at {web_server} is no Ray dashboard" in other.stderr


@pytest.mark.slow
def test_the_quickstart_as_a_job_selects_the_same(head: Head, quickstart: Quickstart, tmp_path: Path) -> None:
    output = tmp_path / "quickstart"
    flags = [part for override in quickstart.overrides for part in ("--set", override)]
    done = head.call("submit", str(quickstart.config), *flags, "--set", f"output={output}")
    assert done.returncode == 0, done.stdout + done.stderr
    for pattern in EXACT:
        ours, theirs = files_of(output, pattern), files_of(quickstart.output, pattern)
        assert theirs
        assert ours.keys() == theirs.keys()
        assert all(ours[name].read_bytes() == theirs[name].read_bytes() for name in theirs), pattern
