"""Ctrl-C and SIGTERM at any moment: one sentence, nothing left, the exit code of shells.

That a run goes on after it was killed is in test_resume.
"""

from __future__ import annotations

import random
import re
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.pipeline.conftest import simulated_file
from tests.pipeline.processes import ROOT, Quickstart, Simulated
from zpd_ray.ray_folder import INNER, PREFIX

SECONDS = 10.0  # in which everything has ended
MOMENTS = 20
LATEST = 45.0  # seconds after the start: in training, on a machine of two cores
SIGNALS = {signal.SIGINT: ("interrupted", 130), signal.SIGTERM: ("ended by SIGTERM", 143)}


def ray_folders(processes: list[psutil.Process]) -> set[Path]:
    """Where the Ray that these belong to has its files."""
    folders = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it ended since it was listed
            found = re.findall(rf"(/\S*/{PREFIX}[^/\s]+)/{INNER}/session_", " ".join(process.cmdline()))
            folders |= {Path(folder) for folder in found}
    return folders


def interrupted(runs: Quickstart | Simulated, output: Path, number: int, after: float) -> bool:
    """Start a run, send it a signal, see it end as it must; whether the signal found it at work."""
    process = subprocess.Popen(
        runs.command(output),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell may have started the tests in the background, where SIGINT is ignored and inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    time.sleep(after)
    if process.poll() is not None:  # it was done by then
        assert process.returncode == 0
        return False
    below = psutil.Process(process.pid).children(recursive=True)
    folders = ray_folders(below)
    process.send_signal(number)
    started = time.monotonic()
    _, told = process.communicate(timeout=2 * SECONDS)
    took = time.monotonic() - started
    word, code = SIGNALS[signal.Signals(number)]
    assert process.returncode == code, told
    last = told.strip().splitlines()[-1]
    assert last == f"zpd-ray: {word}; run the same command again to resume"
    assert "Traceback" not in told
    assert took < SECONDS
    _, left = psutil.wait_procs(below, timeout=SECONDS - min(took, SECONDS - 1))
    assert not left
    while any(folder.exists() for folder in folders):
        assert time.monotonic() - started < SECONDS
        time.sleep(0.1)
    return True


@pytest.mark.parametrize(
    ("number", "after"), [(signal.SIGINT, 6.0), pytest.param(signal.SIGTERM, 12.0, marks=pytest.mark.nightly)]
)
def test_a_signal_ends_a_run(quickstart: Quickstart, tmp_path: Path, number: int, after: float) -> None:
    assert interrupted(quickstart, tmp_path / "run", number, after)


@pytest.mark.parametrize("number", list(SIGNALS))
def test_a_signal_before_ray_has_started(tmp_path: Path, number: int) -> None:
    runs = simulated_file(tmp_path)
    assert interrupted(runs, tmp_path / "run", number, 0.9)


@pytest.mark.slow
@pytest.mark.parametrize("number", list(SIGNALS))
def test_signals_at_seeded_moments(quickstart: Quickstart, tmp_path: Path, number: int) -> None:
    """Every other time a run that was stopped before."""
    moments, struck = random.Random(int(number)), 0
    for turn in range(MOMENTS):
        after = moments.uniform(1.0, LATEST)
        print(f"{number} at {after:.1f} s")
        struck += interrupted(quickstart, tmp_path / f"run-{turn // 2}", number, after)
    assert struck >= MOMENTS - 4  # a run may be done by then
