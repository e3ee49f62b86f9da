"""A command in a pseudo-terminal, and when it wrote what: whether something moves, and how it ends."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROWS, COLUMNS = 50, 120


@dataclass(frozen=True)
class Watched:
    """What a command wrote to its terminal. writes: (seconds since its start, bytes); took: seconds."""

    code: int
    took: float
    writes: list[tuple[float, bytes]]

    @property
    def text(self) -> str:
        """All of it, control sequences included."""
        return b"".join(data for _, data in self.writes).decode(errors="replace")

    @property
    def silences(self) -> list[tuple[float, float]]:
        """(length, begin) in seconds of all times without a byte, the longest first."""
        at = [0.0, *(moment for moment, _ in self.writes), self.took]
        return sorted(((later - before, before) for before, later in pairwise(at)), reverse=True)


def watch(
    command: Sequence[str],
    cwd: Path,
    env: Mapping[str, str] | None = None,
    at: Callable[[int, str], None] = lambda pid, text: None,
    seconds: float = 900.0,
) -> Watched:
    """Run a command to its end in a terminal of its own. at(pid, text): called after every write."""
    begun = time.monotonic()
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
        os.chdir(cwd)
        os.execvpe(command[0], list(command), {**os.environ, "TERM": "xterm-256color", **(env or {})})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    writes: list[tuple[float, bytes]] = []
    while data := _next(terminal, pid, seconds - (time.monotonic() - begun)):
        writes.append((time.monotonic() - begun, data))
        at(pid, data.decode(errors="replace"))
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return Watched(os.waitstatus_to_exitcode(status), time.monotonic() - begun, writes)


def _next(terminal: int, pid: int, seconds: float) -> bytes:
    """What comes next; nothing when the other side is closed."""
    ready, _, _ = select.select([terminal], [], [], max(0.0, seconds))
    if not ready:
        os.kill(pid, signal.SIGKILL)
        raise TimeoutError(f"{pid} wrote nothing and did not end")
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux tells of the end
        return b""


def lines(text: str) -> list[str]:
    """What is left on the screen: the few control sequences that a bar or a spinner takes, carried out."""
    rows: list[list[str]] = [[]]
    row = column = 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", text):
        if token == "\r":
            column = 0
        elif token == "\n":
            row += 1
            rows += [[]] * (row + 1 - len(rows))
        elif token.startswith("\x1b["):
            if token[-1] == "A":
                row = max(0, row - int(token[2:-1] or 1))
            elif token[-1] == "K":
                rows[row] = []
        else:
            kept = "".join(rows[row]).ljust(column)
            rows[row] = list(kept[:column] + token + kept[column + len(token) :])
            column += len(token)
    return ["".join(each).rstrip() for each in rows]
