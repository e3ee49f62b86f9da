"""The folder of a Ray that we start: its sockets, logs and spilled objects, for nobody else's eyes.

Ray lets everybody write in its folders (mode 0777), so they lie inside one that only its owner may enter.
Without Ray: a signal ends a run, and removes its folder, at any moment, also while Ray is being imported.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from zpd_ray.errors import ZpdError

LOGS_VARIABLE = "ZPD_RAY_LOGS"  # in the environment of the processes of a Ray that we started
PREFIX = "zpd-"  # short, as all names here: they are part of the paths of sockets
INNER = "r"
# The longest of them, with a process id of seven digits.
SOCKET = f"{PREFIX}12345678/{INNER}/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
SOCKET_BYTES = 103 if sys.platform == "darwin" else 107  # that the path of a socket may have
REMOVE_SECONDS = 5.0  # in which processes that are ending stop to write into it
PAUSE_SECONDS = 0.1

_folder: Path | None = None  # of the Ray that this process has started
_besides: Path | None = None  # a directory that a signal's end removes, too


def make() -> Path:
    """A new folder with mode 0700 that is this process's from here on.

    It lies where Ray would have its own: RAY_TMPDIR names a larger disk, say. Raises ZpdError when it cannot
    be made there, or would have too long a name.
    """
    global _folder
    place = _place()
    if _excess(place) > 0:
        raise ZpdError(
            f"RAY_TMPDIR = {str(place)!r} is {_excess(place)} bytes too long: paths of Ray's sockets may "
            f"have {SOCKET_BYTES} bytes; give a directory with a shorter name"
        )
    try:
        place.mkdir(parents=True, exist_ok=True)
        _folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    except OSError as problem:
        raise ZpdError(
            f"cannot make a folder for Ray in {place}: {problem}; set RAY_TMPDIR to a directory to write to"
        ) from None
    return _folder


def _place() -> Path:
    """RAY_TMPDIR; else the usual one, or /tmp where that has too long a name for sockets, as on macOS."""
    if named := os.environ.get("RAY_TMPDIR"):
        return Path(named).absolute()
    usual = Path(tempfile.gettempdir())
    return usual if _excess(usual) <= 0 else Path("/tmp")


def _excess(place: Path) -> int:
    return len(os.fsencode(place / SOCKET)) - SOCKET_BYTES


def temp_dir(folder: Path) -> Path:
    """What Ray is to take for its temporary directory."""
    return folder / INNER


def logs() -> str:
    """Where the logs are of the Ray that we started, seen from this process or from one of Ray's; else ""."""
    if _folder is None:
        return os.environ.get(LOGS_VARIABLE, "")
    return logs_in(_folder)


def logs_in(folder: Path) -> str:
    """Where Ray has its logs, by the link that it keeps to its session."""
    return str(temp_dir(folder) / "session_latest" / "logs")


def ray_logs() -> str:
    """For a sentence: "the Ray logs", with their place where it is known."""
    return f"the Ray logs in {logs()}" if logs() else "the Ray logs"


def keep() -> str:
    """Leave the folder of this process for those who look for a cause: where its logs are; "" without one."""
    global _folder
    kept, _folder = _folder, None
    return logs_in(kept) if kept else ""


def remove() -> None:
    """Remove the folder of this process, if there is one, and as far as that is possible."""
    global _folder
    folder = _folder  # a signal's thread may be here at the same time
    if folder is None:
        return
    deadline = time.monotonic() + REMOVE_SECONDS
    while True:
        # Not all at once: processes of Ray that are ending may add a file to a directory while it is emptied.
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists() or time.monotonic() > deadline:
            break
        time.sleep(PAUSE_SECONDS)
    _folder = None


def take_along(directory: Path | None) -> None:
    """A directory of this process that is to go where a signal ends it; None: there is none any more."""
    global _besides
    _besides = directory


def remove_after_the_end() -> None:
    """As ``remove``, by a shell that outlives this process by a moment: returns at once.

    What ``take_along`` named goes, too.

    For a process that has killed its Ray: Python lets another thread run whenever it touches a file, and the
    main thread would then wait in Ray's C++, for half a minute, for servers that are no more.
    """
    directories = [str(directory) for directory in (_folder, _besides) if directory is not None]
    if not directories:
        return
    attempts = " ".join("x" * round(REMOVE_SECONDS / PAUSE_SECONDS))
    script = f'for x in {attempts}; do rm -rf -- "$@" && break; sleep {PAUSE_SECONDS}; done'
    quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
    arguments = ["sh", "-c", script, "sh", *directories]
    # In a session of its own: what else a terminal or a parent sends to our group does not reach it.
    os.posix_spawn("/bin/sh", arguments, {"PATH": os.defpath}, file_actions=quiet, setsid=True)
