"""A user's grader in a process of its own, so that one that hangs or ends its process can be named.

Both sides speak lines of JSON over two pipes; what the grader prints goes where this process prints.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

from zpd_ray.errors import ZpdError
from zpd_ray.graders.base import Verdict
from zpd_ray.user_code import environment

READY = {"ready": True}
MODULE = "zpd_ray.graders.child"
IN_JSON = ("extra", "response_more", "tools")  # columns that a grader is given as objects


class Apart:
    """The grader ``package.module:function`` (or a class), called in a child process."""

    def __init__(self, name: str, patience: float, beat: Callable[[], None]) -> None:
        """patience: seconds for one completion; beat: is called whenever one has been graded."""
        self._name, self._patience, self._beat = name, patience, beat
        self._lock = threading.Lock()  # two parts of a scorer are graded in turns
        self._child: _Child | None = None

    def verdicts(self, completions: list[list[str]], items: list[dict[str, Any]]) -> list[list[Verdict]]:
        """On all completions of each item (a dict with the columns of ``schema.ITEM``).

        Raises ZpdError, naming the item, when the grader raises, returns nonsense, ends its process, or takes
        longer than its patience.
        """
        with self._lock:
            try:
                return [self._of_item(*pair) for pair in zip(completions, items, strict=True)]
            except ZpdError:
                self._end()
                raise

    def _of_item(self, texts: list[str], item: dict[str, Any]) -> list[Verdict]:
        child = self._running()
        child.send({"item": _told(item), "completions": texts})
        found = []
        for text in texts:
            found.append(Verdict(*self._answer(child, item, text)["verdict"]))
            self._beat()
        return found

    def _running(self) -> _Child:
        if self._child is None:
            self._child = _Child(self._name, self._patience)
            self._answer(self._child, {"item_id": None}, "")
            self._beat()  # its import may have taken long
        return self._child

    def _answer(self, child: _Child, item: dict[str, Any], text: str) -> dict[str, Any]:
        at = (
            f"item {item['item_id']!r} and the completion {text[:200]!r}" if item["item_id"] else "its import"
        )
        answer = child.receive(self._patience)
        if answer is None:
            raise ZpdError(
                f"the grader {self._name} took longer than measure.patience = {self._patience:g} s over {at}"
                "; mend it, or raise the patience, and run again: parts that are done are kept"
            )
        if "ended" in answer:
            raise ZpdError(
                f"the grader {self._name} ended its process ({answer['ended']}) over {at}; what it printed "
                f"is in {_log()}; mend it and run again: parts that are done are kept"
            )
        if "error" in answer:
            raise ZpdError(answer["error"])
        return answer

    def _end(self) -> None:
        if self._child is not None:
            self._child.end()
        self._child = None


class _Child:
    """The process, and the pipes to and from it."""

    def __init__(self, name: str, patience: float) -> None:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        pipes = (str(theirs_in), str(theirs_out))
        command = [sys.executable, "-P", "-m", MODULE, *pipes, name, str(patience)]
        self._process = subprocess.Popen(
            command,
            pass_fds=(theirs_in, theirs_out),
            env=environment(),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a group of its own, with what the grader starts
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._out: BinaryIO = os.fdopen(ours_out, "wb", buffering=0)
        self._in, self._read = ours_in, b""
        # Once: when the process has been waited for, its number may be another group's.
        self.end = weakref.finalize(self, _kill, self._process, self._out, self._in)

    def send(self, message: dict[str, Any]) -> None:
        """One line; a child that has gone is found out by ``receive``."""
        line = memoryview(json.dumps(message).encode() + b"\n")
        try:
            while line:
                line = line[self._out.write(line) or 0 :]
        except BrokenPipeError:
            return

    def receive(self, patience: float) -> dict[str, Any] | None:
        """The next line; {"ended": how} where there is none; None after ``patience`` seconds."""
        deadline, poll = time.monotonic() + patience, select.poll()  # select ends at descriptor 1023
        poll.register(self._in, select.POLLIN)
        while b"\n" not in self._read:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(1000 * left):
                return None
            chunk = os.read(self._in, 1 << 16)
            if not chunk:
                return {"ended": _how(self._process.wait())}
            self._read += chunk
        line, _, self._read = self._read.partition(b"\n")
        return dict(json.loads(line))


def _kill(process: subprocess.Popen[bytes], out: BinaryIO, fd: int) -> None:
    """Ends the grader, whatever it is doing, and what it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    out.close()
    os.close(fd)


def _told(item: dict[str, Any]) -> dict[str, Any]:
    """An item as a grader sees it."""
    return item | {name: json.loads(item[name]) for name in IN_JSON if item.get(name)}


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _log() -> str:
    """Where what this process prints is kept."""
    try:
        return os.readlink("/proc/self/fd/1")
    except OSError:
        return "the log of the scoring actor"
