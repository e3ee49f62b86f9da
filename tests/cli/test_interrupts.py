"""Signals and the process that gets them; with Ray: tests/pipeline/test_interrupts.py."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

CODE = """
import subprocess, sys, threading, time
from zpd_ray.cli.interrupts import ended_by_signals
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], **quiet)
print(child.pid, flush=True)
lock = threading.Lock()
lock.acquire()
with ended_by_signals():
    print("ready", flush=True)
    WAIT
print("went on", flush=True)
child.kill()
"""


def started(wait: str, ignored: bool = False) -> subprocess.Popen[str]:
    handler = signal.SIG_IGN if ignored else signal.default_int_handler
    process = subprocess.Popen(
        [sys.executable, "-c", CODE.replace("WAIT", wait)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip().isdigit()
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("wait", ["time.sleep(60)", "lock.acquire()", "while True: pass"])
@pytest.mark.parametrize(
    ("number", "word", "code"),
    [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "ended by SIGTERM", 143)],
)
def test_whatever_the_main_thread_waits_for(wait: str, number: int, word: str, code: int) -> None:
    process = started(wait)
    begun = time.monotonic()
    process.send_signal(number)
    _, told = process.communicate(timeout=20)
    assert time.monotonic() - begun < 10
    assert process.returncode == code
    assert told == f"zpd-ray: {word}; run the same command again to resume\n"


def test_what_a_shell_ignores_for_its_background_stays_ignored() -> None:
    process = started("time.sleep(1)", ignored=True)
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=70)
    assert process.returncode == 0
    assert "went on" in out
    assert told == ""
