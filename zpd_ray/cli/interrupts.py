"""Ctrl-C and SIGTERM at whatever moment: one sentence, nothing of ours left, within seconds.

Python runs a handler only when the main thread comes back from a library, and Ray and Ray Train put handlers
of their own in its place. So a thread of ours is woken by the signal itself (``signal.set_wakeup_fd``) and
ends the process with all below it. No work is lost by that: a run that is killed resumes with the same bytes.
The folder of a Ray of our own goes, too: nothing has failed that its logs would explain, and ending a run to
resume it later is an ordinary way to work, which should not fill the disk.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from zpd_ray import ray_folder
from zpd_ray.stopping import stopped_by

ENDS = (signal.SIGINT, signal.SIGTERM)
STDERR = 2
STOPPED = 2  # exit code, as of every command that ends with a sentence
_ending = threading.Lock()  # held from a signal on, until the process has ended


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """A signal ends the process here, with 128 + its number; only in a process's main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # What a shell has told this process to ignore (SIGINT, of a job in the background) stays ignored.
    heard = [number for number in ENDS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, lambda *_: None) for number in heard}
    fd = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), daemon=True).start()
    try:
        with stopped_by(_stop):
            yield
    finally:
        with _ending:  # Ray's own handler of SIGTERM leaves by an exception: not before we have cleared up
            signal.set_wakeup_fd(fd)
        os.close(writing)  # which ends the thread
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(reading: int) -> None:
    while byte := os.read(reading, 1):
        if byte[0] in ENDS:
            number = signal.Signals(byte[0])
            word = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
            _end(f"{word}; run the same command again to resume", 128 + number)


def _stop(sentence: str) -> None:
    _end(sentence, STOPPED)


def _end(sentence: str, code: int) -> None:
    _ending.acquire()
    from zpd_ray.terminal import clear

    try:
        clear()
        sys.stdout.flush()
        told = _only_ours()
        _kill_children()
        os.write(told, f"zpd-ray: {sentence}\n".encode())
        ray_folder.remove_after_the_end()
    finally:  # a terminal or a pipe that is gone does not keep it
        os._exit(code)


def _only_ours() -> int:
    """A descriptor of stderr for our sentence; what others write there from here on is lost.

    Ray's core, in C++, tells of its processes that are gone, in the moment in which they are.
    """
    ours = os.dup(STDERR)
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDERR)
    return ours


def _kill_children() -> None:
    """Ray's processes, where it was started here, and all else below this one."""
    import psutil

    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()
