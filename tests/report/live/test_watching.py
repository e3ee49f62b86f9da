"""``zpd-ray watch``: on a screen, in a log, as JSON; it ends with the run, and Ctrl-C ends it alone."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

from tests.cli.screen import watch as in_terminal
from tests.report.live.conftest import Working, seen
from zpd_ray.cli.app import app
from zpd_ray.report.live import Look
from zpd_ray.report.live.watching import LOOK_SECONDS
from zpd_ray.rundir import Run

ROOT = Path(__file__).parents[3]


def command(run: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "zpd_ray", "watch", str(run), *options]


def once_it_shows(what: str, then: Callable[[int], None]) -> Callable[[int, str], None]:
    shown, done = [""], []

    def at(pid: int, text: str) -> None:
        shown[0] += text
        if what in shown[0] and not done:
            done.append(pid)
            then(pid)

    return at


def test_a_picture_that_ctrl_c_ends_alone_and_that_ends_when_the_run_does(
    begun: Path, working: Working
) -> None:
    seen(Look(str(begun)), lambda live: bool(live.doing))
    interrupt = once_it_shows("stage 1: measure", lambda pid: os.kill(pid, signal.SIGINT))
    watched = in_terminal(command(begun), ROOT, at=interrupt, seconds=60)
    assert watched.code == 130
    assert "Traceback" not in watched.text
    assert working.process.poll() is None
    working.tell("250")

    end = once_it_shows("250 of 1,500", lambda pid: working.tell("end"))
    watched = in_terminal(command(begun), ROOT, at=end, seconds=60)
    assert watched.code == 0  # it was told to stop there
    assert "left: stage" in watched.text
    assert "stopped" in watched.text
    assert watched.text.rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_json_tells_every_change_up_to_the_failure(begun: Path, working: Working) -> None:
    look = Look(str(begun))
    seen(look, lambda live: bool(live.doing))

    def work() -> None:
        time.sleep(2 * LOOK_SECONDS)
        working.tell("10")
        time.sleep(2 * LOOK_SECONDS)
        working.tell("fail")

    thread = Thread(target=work)
    thread.start()
    done = CliRunner().invoke(app, ["watch", str(begun), "--json"])
    thread.join()
    lives = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == lives[-1]["exit_code"] == 2
    assert "the disk is full" in lives[-1]["told"]
    states = [(live["state"], live["doing"][0]["done"] if live["doing"] else None) for live in lives]
    assert states[0] == ("running", 0)
    assert ("running", 10) in states
    assert states[-1] == ("failed", None)
    assert len(lives) < 8  # nothing where nothing changed


def test_a_log_gets_a_line_where_something_began_or_ended(begun: Path, working: Working) -> None:
    seen(Look(str(begun)), lambda live: bool(live.doing))
    thread = Thread(target=lambda: (time.sleep(2 * LOOK_SECONDS), working.process.kill()))
    thread.start()
    done = CliRunner().invoke(app, ["watch", str(begun)])
    thread.join()
    first, last = done.stdout.splitlines()
    assert done.exit_code == 2
    assert first.startswith("running: stage 1: measure 0 of 1,500; left: stage ")
    assert "theta " in first
    assert last.startswith("killed: ")


@pytest.mark.parametrize("as_json", [True, False])
def test_once_shows_the_state_and_ends(begun: Path, as_json: bool) -> None:
    before = {path: path.stat().st_mtime_ns for path in begun.rglob("*")}
    done = CliRunner().invoke(app, ["watch", str(begun), "--once", *(["--json"] if as_json else [])])
    assert done.exit_code == 0
    if as_json:
        assert json.loads(done.stdout)["state"] == "killed"
    else:
        assert f"{begun}: killed" in done.stdout.replace("\n", "")
    assert {path: path.stat().st_mtime_ns for path in begun.rglob("*")} == before


def test_a_finished_run_is_shown_and_that_is_the_end(taken: Run) -> None:
    done = CliRunner().invoke(app, ["watch", taken.store.root])
    assert done.exit_code == 0
    assert done.stdout.startswith("finished: all stages are done")


def test_what_cannot_be_opened_is_said_in_a_sentence() -> None:
    done = CliRunner().invoke(app, ["watch", "nonsense://bucket/run", "--once"])
    assert done.exit_code == 2
    assert "cannot open output" in done.stderr
