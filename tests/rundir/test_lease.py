"""The lock of a run directory in an object store, against a server that speaks S3."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta

import pytest

from tests.faulty import LOST, REFUSED, UNKNOWN, FaultyProxy
from tests.s3 import Bucket
from tests.s3 import bucket as bucket  # fixtures
from tests.s3 import server as server
from zpd_ray.errors import ZpdError
from zpd_ray.report.live import Look
from zpd_ray.report.live.look import RUNNING
from zpd_ray.rundir import Store, conditional, lease
from zpd_ray.rundir.begin import check_ours
from zpd_ray.rundir.conditional import NoConditionsError, Version
from zpd_ray.rundir.layout import LOCK
from zpd_ray.rundir.lock import is_held, locked

pytest.importorskip("obstore", reason="the extra 'object-store' is not installed")

LEASE, BEAT = 3.0, 0.3
DRIVER = """
import sys, time
from zpd_ray.cli.interrupts import ended_by_signals
from zpd_ray.rundir import Store, holder, lease
from zpd_ray.rundir.lock import locked

lease.LEASE_SECONDS, lease.BEAT_SECONDS = float(sys.argv[2]), float(sys.argv[3])
if sys.argv[4] == "elsewhere":
    holder.machine = lambda: "of another machine"
store = Store(sys.argv[1])
with ended_by_signals(), locked(store):
    print("has it", flush=True)
    for _ in sys.stdin:
        store.write_bytes("told.txt", b"of the first")
    time.sleep(600)
"""


class Driver:
    """A process that has the lock until it is told otherwise."""

    def __init__(self, uri: str, where: str = "here") -> None:
        arguments = [sys.executable, "-c", DRIVER, uri, str(LEASE), str(BEAT), where]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.process = subprocess.Popen(arguments, text=True, **pipes)  # type: ignore[call-overload]
        assert self.process.stdout.readline() == "has it\n", self.process.communicate()

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", LEASE)
    monkeypatch.setattr(lease, "BEAT_SECONDS", BEAT)
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(lease, "_warned", set())


def test_a_second_driver_is_refused_and_told_by_whom(bucket: Bucket) -> None:
    uri = bucket.uri("two")
    with Driver(uri) as first:
        began = time.monotonic()
        with pytest.raises(ZpdError) as refused, locked(Store(uri)):
            pass
        assert time.monotonic() - began < LEASE
        assert is_held(Store(uri)) is True
    told = str(refused.value)
    for part in (
        f"process {first.process.pid} on ",
        "since 20",
        "last sign at 20",
        "runs out 3 s",
        "wait for",
    ):
        assert part in told, told


def test_one_elsewhere_is_refused_as_soon_as_the_holder_gives_a_sign(
    bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = bucket.uri("elsewhere")
    with (
        Driver(uri, "elsewhere"),
        pytest.raises(ZpdError, match="another process is working on s3://bucket/elsewhere: process"),
        locked(Store(uri)),
    ):
        pass
    assert "this command goes on" in capsys.readouterr().err


def test_the_lock_of_a_process_that_was_killed_here_is_free_at_once(bucket: Bucket) -> None:
    uri = bucket.uri("killed")
    with Driver(uri) as first:
        first.kill()
    store, began = Store(uri), time.monotonic()
    assert is_held(store) is False
    with locked(store):
        assert time.monotonic() - began < LEASE
        assert is_held(store) is True


def test_that_of_one_killed_elsewhere_is_taken_over_when_it_has_run_out(bucket: Bucket) -> None:
    uri = bucket.uri("gone")
    with Driver(uri, "elsewhere") as first:
        first.kill()
    began = time.monotonic()
    with locked(Store(uri)):
        assert LEASE <= time.monotonic() - began < 3 * LEASE


def test_one_that_was_paused_while_another_took_over_writes_no_more_and_says_why(bucket: Bucket) -> None:
    uri = bucket.uri("paused")
    store = Store(uri)
    with Driver(uri, "elsewhere") as first:
        os.kill(first.process.pid, signal.SIGSTOP)
        with locked(store):
            store.write_bytes("told.txt", b"of the second")
            first.process.stdin.write("write\n")
            first.process.stdin.flush()
            os.kill(first.process.pid, signal.SIGCONT)
            assert first.process.wait(timeout=60) != 0
            assert store.read_bytes("told.txt") == b"of the second"
            assert is_held(store) is True
        told = first.process.stderr.read()
    assert "another process has taken over the run in s3://bucket/paused" in told


def test_one_that_waits_ends_too_when_another_has_taken_over(bucket: Bucket) -> None:
    """The command line's way: no write of its own would tell it."""
    uri = bucket.uri("waiting")
    with Driver(uri, "elsewhere") as first:
        os.kill(first.process.pid, signal.SIGSTOP)
        with locked(Store(uri)):
            os.kill(first.process.pid, signal.SIGCONT)
            _, told = first.process.communicate(timeout=60)
    assert first.process.returncode == 2
    assert told.startswith("zpd-ray: another process has taken over the run")
    assert told.count("\n") == 1


def test_the_holder_renews_it_and_gives_it_back(bucket: Bucket) -> None:
    store = Store(bucket.uri("renewed"))
    with locked(store):
        first = store.read_json(LOCK)
        time.sleep(4 * BEAT)
        later = store.read_json(LOCK)
        assert Look(store.uri).now().state == RUNNING
    assert later["renewed"] > first["renewed"]
    assert later["id"] == first["id"]
    assert is_held(store) is False
    check_ours(store)  # though no run has been recorded in it
    with locked(store):
        pass


def test_a_directory_that_is_removed_meanwhile_is_not_anothers(bucket: Bucket) -> None:
    store = Store(bucket.uri("removed"))
    with locked(store):
        store.remove("")
        time.sleep(4 * BEAT)
        store.write_bytes("x", b"")
    assert is_held(store) is False


@pytest.mark.nightly
def test_answers_that_are_lost_are_no_other_driver(bucket: Bucket) -> None:
    """What was written by an attempt of one's own is not taken for another's."""
    with FaultyProxy(bucket.address, 0.5, 50, [LOST]).serving() as proxy:
        store = Store(Bucket(proxy.address).uri("lost"))
        with locked(store):
            time.sleep(10 * BEAT)
            store.write_bytes("x", b"")
        lost = proxy.faults[LOST]
    assert lost > 5
    assert is_held(Store(bucket.uri("lost"))) is False


def test_a_place_that_may_not_be_written_to_is_told(bucket: Bucket) -> None:
    with FaultyProxy(bucket.address, 1.0, 99, [REFUSED]).serving() as proxy:
        store = Store(Bucket(proxy.address).uri("forbidden"))
        with (
            pytest.raises(ZpdError, match="cannot lock the run directory s3://bucket/forbidden: "),
            locked(store),
        ):
            pass


class Older(FaultyProxy):
    """A store from before there were conditional writes."""

    def fault(self, method: str, conditional: bool) -> str | None:
        return UNKNOWN if conditional else None


def test_a_store_that_knows_no_conditions_is_warned_of(
    bucket: Bucket, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditional, "AT_MOST", timedelta(seconds=1))
    with Older(bucket.address, 0.0, 0).serving() as proxy:
        store = Store(Bucket(proxy.address).uri("unconditional"))
        with locked(store):
            assert is_held(store) is None
    assert "not locked: the store has no conditional writes" in capsys.readouterr().err


class Careless:
    """A file of a store that writes whatever the condition."""

    def read(self) -> Version | None:
        return None

    def write(self, _content: bytes, _after: object) -> dict[str, str] | None:
        return {"e_tag": "x"}


def test_a_store_that_ignores_conditions_locks_nothing() -> None:
    with pytest.raises(NoConditionsError, match="whatever the condition"):
        lease.Lease("s3://x", Careless()).take()  # type: ignore[arg-type]


def test_without_the_library_a_run_goes_on_unlocked_with_a_warning_and_respects_who_has_a_lock(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(conditional, "find_spec", lambda _: None)
    store = Store(bucket.uri("without"))
    for _ in range(2):
        with locked(store):
            assert is_held(store) is None
    told = capsys.readouterr().err
    assert told.count("warning: ") == 1
    assert "pip install 'zpd-ray[object-store]'" in told
    with (
        Driver(bucket.uri("respected")),
        pytest.raises(ZpdError, match="another process is working on"),
        locked(Store(bucket.uri("respected"))),
    ):
        pass
