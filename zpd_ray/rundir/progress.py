"""progress.json: what a run is at, for whoever watches it from elsewhere; no part of its result.

The process that works on the run replaces it every few seconds, which is a sign of life, too, and says in it
how it has ended. A process that was killed says nothing more. Runs with the same seed differ in it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from threading import Event, Lock, Thread
from typing import Any

from zpd_ray.at_work import Doing, at_work
from zpd_ray.errors import ZpdError
from zpd_ray.rundir.layout import PROGRESS
from zpd_ray.rundir.store import Store
from zpd_ray.terminal import warn

LOCAL_SECONDS, REMOTE_SECONDS = 2.0, 10.0  # an object store asks a price for each
DONE, FAULT, TO_MEND, INTERRUPTED = 0, 1, 2, 130  # exit codes


@dataclass(frozen=True)
class Progress:
    """What a command is at.

    at, began: seconds since 1970, of this record and of the command. host, pid: of its process. doing: steps
    under way. exit_code: None while it is at work; error: a sentence of why it failed.
    """

    command: str
    host: str
    pid: int
    began: float
    at: float
    doing: list[Doing]
    exit_code: int | None = None
    error: str | None = None


def load_progress(store: Store) -> Progress | None:
    """The last record of a run; None where there is none."""
    if not store.exists(PROGRESS):
        return None
    told: dict[str, Any] = store.read_json(PROGRESS)
    doing = [_known(Doing, each) for each in told.pop("doing")]
    return Progress(**_known_keys(Progress, told), doing=doing)


def _known(kind: type[Doing], told: Mapping[str, Any]) -> Doing:
    return kind(**_known_keys(kind, told))


def _known_keys(kind: type, told: Mapping[str, Any]) -> dict[str, Any]:
    """Without what a later version has to say besides."""
    names = {each.name for each in fields(kind)}
    return {key: value for key, value in told.items() if key in names}


def seconds_between(store: Store) -> float:
    """How often the record of a run is replaced."""
    return LOCAL_SECONDS if store.is_local else REMOTE_SECONDS


class Recorder:
    """Keeps progress.json, for the length of a command: ``with Recorder(store, "run"):``."""

    def __init__(self, store: Store, command: str) -> None:
        """Nothing is written before it is entered."""
        self._store, self._ended, self._busy = store, Event(), Lock()
        now = time.time()
        self._progress = Progress(command, socket.gethostname(), os.getpid(), now, now, [])
        self._hear: Callable[[], None] | None = None
        self._warned = set[str]()
        self._thread = Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Recorder:
        self._write()
        self._thread.start()
        return self

    def __exit__(self, _kind: object, failure: BaseException | None, _trace: object) -> None:
        """The last record tells how it ended; failures pass."""
        self._ended.set()
        self._thread.join()
        code, error = ending(failure)
        self._progress = replace(self._progress, exit_code=code, error=error)
        self._write()

    @contextmanager
    def heard_by(self, hear: Callable[[], None]) -> Iterator[None]:
        """Call ``hear`` after every record, in the recorder's thread, and never after this has ended."""
        with self._busy:
            self._hear = hear
        try:
            yield
        finally:
            with self._busy:
                self._hear = None

    def _beat(self) -> None:
        while not self._ended.wait(seconds_between(self._store)):
            with self._busy:
                self._write()
                self._tell()

    def _tell(self) -> None:
        """Whatever is wrong with who hears it, the run and its signs of life go on."""
        try:
            if self._hear is not None:
                self._hear()
        except Exception as problem:
            self._warn_once("Ray's metrics and the screen do", f"{type(problem).__name__}: {problem}")

    def _write(self) -> None:
        """A record that cannot be written is no reason to end a run."""
        self._progress = replace(self._progress, at=time.time(), doing=at_work.now())
        try:
            self._store.write_json(PROGRESS, asdict(self._progress))
        except ZpdError as problem:
            self._warn_once("`zpd-ray watch` does", str(problem))

    def _warn_once(self, who: str, problem: str) -> None:
        if who not in self._warned:
            self._warned.add(who)
            warn(f"{who} not show how far this run is: {problem}")


def ending(failure: BaseException | None) -> tuple[int, str | None]:
    """Exit code of a command that ends with this, and a sentence."""
    if failure is None:
        return DONE, None
    if isinstance(failure, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    if isinstance(failure, ZpdError):
        return TO_MEND, str(failure)
    return FAULT, f"{type(failure).__name__}: {failure}"
