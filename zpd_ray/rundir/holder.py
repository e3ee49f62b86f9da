"""Who has a lock: what its file says, and whether that is a process of this machine that has ended."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LOCK_BYTES = 1024


@dataclass(frozen=True)
class Holder:
    """Who has a lock.

    id: of this taking. machine: that the number of a process is good for, "" where that is not known.
    started: ticks since the machine's boot, of the process. since, renewed: seconds since 1970, of the lock
    and of its last sign.
    """

    id: str
    host: str
    pid: int
    machine: str
    started: int
    since: float
    renewed: float

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, which has had it since {clock(self.since)}"


def this_process() -> Holder:
    """A holder of a new lock."""
    now, pid = time.time(), os.getpid()
    _, started = _state_of(pid) or ("", 0)
    return Holder(uuid.uuid4().hex, socket.gethostname(), pid, machine(), started, now, now)


def signed(holder: Holder) -> bytes:
    """The file of a lock with a sign of now, so that no two are the same."""
    return padded(asdict(holder) | {"renewed": time.time()})


def padded(told: dict[str, Any]) -> bytes:
    """JSON of the same length each time: pyarrow asks for a file's size, and then for so many bytes."""
    return json.dumps(told).encode().ljust(LOCK_BYTES - 1) + b"\n"


def read_holder(content: bytes) -> Holder | None:
    """None where nobody has the lock: it was given back, or was made by a version without leases."""
    try:
        told: dict[str, Any] = json.loads(content)
        return Holder(**{each.name: told[each.name] for each in fields(Holder)})
    except (ValueError, TypeError, KeyError):
        return None


def is_at_work(holder: Holder) -> bool:
    """Whether the holder is a living process of this machine."""
    return bool(holder.machine) and holder.machine == machine() and not is_gone(holder)


def is_gone(holder: Holder) -> bool:
    """Whether the holder was a process of this machine, and is no more."""
    if not holder.machine or holder.machine != machine():
        return False
    now = _state_of(holder.pid)
    return now is None or now[0] == "Z" or now[1] != holder.started


def _state_of(pid: int) -> tuple[str, int] | None:
    """State (Z: it has ended) and start of a process of Linux, by /proc/PID/stat; None: there is none.

    Not by psutil, whose time of start moves with the clock.
    """
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    after_name = told.rpartition(")")[2].split()  # fields 3 and on of proc_pid_stat(5)
    return after_name[0], int(after_name[19])


def machine() -> str:
    """Where the number of a process says which one: a boot of a Linux machine, and a namespace in it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def clock(at: float) -> str:
    """Seconds since 1970 for people."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
