"""A run that stopped in its second stage, and a process that works on it as a run does, without Ray."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zpd_ray.report.live import Live, Look
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import EVENTS, LOCK, PROGRESS

WORK = """
import sys
from zpd_ray.at_work import at_work
from zpd_ray.errors import ZpdError
from zpd_ray.rundir import Store, progress
from zpd_ray.rundir.lock import locked

progress.LOCAL_SECONDS = 0.1
store = Store(sys.argv[1])
with locked(store), progress.Recorder(store, "measure"):
    with at_work.step("measure", 1), at_work.work("measuring stage 1", 1500) as advance:
        for line in sys.stdin:
            if line.strip() == "fail":
                raise ZpdError("the disk is full; free some space")
            if line.strip() == "end":
                break
            advance(int(line))
"""


class Working:
    """The process; it does what it is told."""

    def __init__(self, run: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORK, str(run)], stdin=subprocess.PIPE, text=True
        )

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()


def seen(look: Look, what: Callable[[Live], bool]) -> Live:
    """The run as soon as it is so."""
    deadline = time.monotonic() + 30
    while not what(live := look.now()):
        assert time.monotonic() < deadline, live
        time.sleep(0.05)
    return live


@pytest.fixture
def begun(taken: Run, tmp_path: Path) -> Path:
    """A copy of a finished run, less its second stage."""
    run = tmp_path / "run"
    shutil.copytree(taken.store.root, run)
    shutil.rmtree(run / "stages" / "01")
    events = [line for line in (run / EVENTS).read_text().splitlines() if json.loads(line)["stage"] != 1]
    (run / EVENTS).write_text("".join(f"{line}\n" for line in events))
    (run / PROGRESS).unlink()
    (run / LOCK).touch()
    return run


@pytest.fixture
def working(begun: Path) -> Iterator[Working]:
    process = Working(begun)
    yield process
    process.process.kill()
    process.process.wait()
