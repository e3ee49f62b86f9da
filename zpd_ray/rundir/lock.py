"""The lock of a run directory: one process at a time works on a run.

On a file system it is the kernel's and dies with its process; in an object store a lease (``rundir.lease``).
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from zpd_ray.errors import ZpdError
from zpd_ray.rundir import lease
from zpd_ray.rundir.layout import LOCK
from zpd_ray.rundir.store import Store

LOCK_SECONDS = 1.0  # that a lock is tried for: who only looks holds it for a moment


@contextmanager
def locked(store: Store) -> Iterator[None]:
    """The run directory, begun if it is new, for one process at a time where the place can say so.

    A killed process leaves no lock behind on a file system, and in an object store one that runs out. Raises
    ZpdError when another process has the run, or the directory cannot be made.
    """
    if not store.is_local:
        with lease.held(store):
            yield
        return
    with _open_lock(store) as handle:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _take(handle, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise ZpdError(
                    f"another process is working on {store.root}; wait for it, or give another output"
                )
            time.sleep(0.05)
        yield


def is_held(store: Store) -> bool | None:
    """Whether a living process has the run; None where that cannot be seen.

    It has the lock of a file system itself for a moment, together with others who look.
    """
    if not store.is_local:
        return lease.is_held(store)
    try:
        with Path(store.path(LOCK)).open() as handle:
            return not _take(handle, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    except OSError:  # who may not read it, and a file system without locks
        return None


def _take(handle: TextIO, kind: int) -> bool:
    """Whether the lock of this kind was to be had at once; it goes with the handle."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_lock(store: Store) -> TextIO:
    try:
        Path(store.path()).mkdir(parents=True, exist_ok=True)  # the root may be a file:// URI
        return Path(store.path(LOCK)).open("a")
    except OSError as problem:
        raise ZpdError(
            f"cannot write to the run directory {store.root}: {problem}; set output to another place"
        ) from None
