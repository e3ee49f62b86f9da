"""The lock of a run directory in an object store: a lease, which its holder renews as long as it lives.

The lock is a file that says who has it, written on condition that nobody else has written it since. No
clocks are compared: who finds a lock waits until it has seen no renewal for LEASE_SECONDS, by its own clock.
A holder that could not renew for long, as one that was paused, writes nothing before it has renewed; where
another has taken over by then, it ends. What its workers have in hand arrives still: the bytes of a part do
not depend on who measures it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from zpd_ray.errors import ZpdError, first_line
from zpd_ray.rundir.conditional import ConditionalFile, NoConditionsError, Version
from zpd_ray.rundir.holder import (
    Holder,
    clock,
    is_at_work,
    is_gone,
    padded,
    read_holder,
    signed,
    this_process,
)
from zpd_ray.rundir.layout import LOCK
from zpd_ray.rundir.store import Store
from zpd_ray.stopping import stop
from zpd_ray.terminal import say, warn
from zpd_ray.uris import patiently

LEASE_SECONDS = 60.0  # without a sign of its holder until a lock is free
BEAT_SECONDS = 10.0  # between two signs
LOOK_SECONDS = 2.0  # between two looks at another's lock
CLOCKS_SECONDS = 15 * 60.0  # that clocks may differ by: S3 itself answers nobody whose clock differs by more

OURS, ANOTHERS, REMOVED = "ours", "another's", "removed"

_warned = set[str]()


@contextmanager
def held(store: Store) -> Iterator[None]:
    """The lock, and its renewal by a thread. Where there can be none, a warning, once for each reason.

    Raises ZpdError when another process has the lock, and when it has taken over from this one.
    """
    lease = _taken(store)
    if lease is None:
        yield
        return
    store.check_held = lease.check
    try:
        with lease.renewed():
            yield
    except KeyboardInterrupt:
        if lease.lost is None:
            raise
        raise ZpdError(lease.lost) from None
    finally:
        store.check_held = None


def is_held(store: Store) -> bool | None:
    """Whether a living process has the lock; None for a run of which that cannot be told: it has no lease."""
    info = patiently(store.fs.get_file_info)(store.path(LOCK))
    if not info.is_file:
        return False
    content = store.read_bytes(LOCK)
    if not content:
        return None
    holder = read_holder(content)
    return holder is not None and not _is_over(holder, info.mtime, LEASE_SECONDS + BEAT_SECONDS)


def _taken(store: Store) -> Lease | None:
    """None where there can be no lease: then a lock that can be seen is respected, and no other one made."""
    try:
        lease = Lease(store.root, ConditionalFile(store, LOCK))
        lease.take()
        return lease
    except NoConditionsError as problem:
        reason = str(problem)
    except ZpdError:
        raise
    except Exception as problem:  # obstore's, and Python's own
        raise ZpdError(
            f"cannot lock the run directory {store.root}: {first_line(problem)}; expected a place that may "
            "be written to, with credentials in the environment or by a role of the machine; set output to "
            "another place (where obstore is not installed, runs go on without a lock)"
        ) from problem
    if is_held(store):
        raise ZpdError(f"another process is working on {store.root}; wait for it, or give another output")
    if reason not in _warned:
        _warned.add(reason)
        warn(f"nothing would refuse a second command on {store.root}, which is not locked: {reason}")
    store.write_bytes(LOCK, b"")
    return None


class Lease:
    """A lock that this process tries for, has, or had."""

    def __init__(self, root: str, file: ConditionalFile) -> None:
        """root: the run directory, for sentences. Nothing is written yet."""
        self._root, self._file = root, file
        self._me = this_process()
        self._tag: dict[str, str] | None = None
        self._renewed_at = 0.0  # by _elapsed(), before the request was sent
        self._busy, self._ended = threading.Lock(), threading.Event()
        self._in_main = threading.current_thread() is threading.main_thread()
        self.lost: str | None = None  # a sentence, once another has taken over

    def take(self) -> None:
        """Take the lock, when it is free or has run out.

        Raises ZpdError when its holder gives a sign, NoConditionsError where the store ignores conditions.
        """
        seen, until = None, 0.0
        while True:
            found = self._file.read()
            holder = None if found is None else read_holder(found.content)
            if found is None or holder is None or self._is_free(holder, found, seen, until):
                if self._try(None if found is None else found.tag):
                    break
            elif is_at_work(holder) or (seen is not None and found.tag != seen):
                raise ZpdError(self._refusal(holder))
            elif seen is None:
                seen, until = found.tag, _elapsed() + LEASE_SECONDS
                self._say_that_it_waits(holder)
            time.sleep(LOOK_SECONDS)
        if self._file.write(b"", None) is not None:
            raise NoConditionsError("the store writes files whatever the condition")

    def _is_free(self, holder: Holder, found: Version, seen: object, until: float) -> bool:
        """Also where an attempt of ours has taken it whose answer was lost."""
        waited = found.tag == seen and _elapsed() > until
        over = _is_over(holder, found.modified, LEASE_SECONDS + CLOCKS_SECONDS)
        return waited or over or holder.id == self._me.id

    def _say_that_it_waits(self, holder: Holder) -> None:
        end = clock(time.time() + LEASE_SECONDS)
        say(f"{self._root} is locked by {holder}; where that gives no sign until {end}, this command goes on")

    def _refusal(self, holder: Holder) -> str:
        return (
            f"another process is working on {self._root}: {holder}, and gave its last sign at "
            f"{clock(holder.renewed)}; wait for it, or give another output (should it have died, its lock "
            f"runs out {LEASE_SECONDS:.0f} s after its last sign, and the same command then goes on)"
        )

    def check(self) -> None:
        """Raises ZpdError when the lock is another's, or cannot be renewed where it may have run out."""
        if self.lost is None and _elapsed() - self._renewed_at > LEASE_SECONDS / 2:
            try:
                self._renew()
            except Exception as problem:
                raise ZpdError(
                    f"the lock of {self._root} cannot be renewed ({first_line(problem)}), without which "
                    "nothing is written; once the store answers, the same command goes on"
                ) from problem
        if self.lost is not None:
            raise ZpdError(self.lost)

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the lock in a thread of its own, and give it back at the end."""
        thread = threading.Thread(target=self._beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            with suppress(Exception):  # it then runs out
                self._give_back()

    def _give_back(self) -> None:
        """The file stays: it says that the directory is a run's."""
        released = padded({"released": time.time()})
        while self.lost is None and self._file.write(released, self._tag) is None:
            if self._whose() != OURS:
                return

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with suppress(Exception):  # tried again, and ``check`` looks after it
                self._renew()
            if self.lost is not None:
                if self._in_main:
                    stop(self.lost)
                return

    def _renew(self) -> None:
        with self._busy:
            while self.lost is None and not self._try(self._tag):
                if self._whose() == ANOTHERS:
                    self.lost = (
                        f"another process has taken over the run in {self._root}, of which this one gave no "
                        f"sign for {LEASE_SECONDS:.0f} s; nothing is lost: let it go on there"
                    )

    def _whose(self) -> str:
        """Whose the lock is, after a write that was refused: one whose answer was lost has come through."""
        found = self._file.read()
        holder = None if found is None else read_holder(found.content)
        if found is not None and (holder is None or holder.id != self._me.id):
            return ANOTHERS
        self._tag = None if found is None else found.tag
        return REMOVED if found is None else OURS

    def _try(self, after: dict[str, str] | None) -> bool:
        began = _elapsed()
        tag = self._file.write(signed(self._me), after)
        if tag is not None:
            self._tag, self._renewed_at = tag, began
        return tag is not None


def _is_over(holder: Holder, modified: datetime, seconds: float) -> bool:
    """Whether a lock had no sign for so long, by clocks that may differ, or its process is known gone."""
    return (datetime.now(UTC) - modified).total_seconds() > seconds or is_gone(holder)


def _elapsed() -> float:
    """Seconds, also those for which the machine was suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
