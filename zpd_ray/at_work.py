"""What this process is at: steps of a run, and in each the piece of work that is counted at the moment.

Those who do the work tell it (``pipeline.steps``, ``terminal.progress``); ``rundir.progress`` reads it. A
piece of work belongs to the step that its thread has begun: two steps may be under way side by side.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock, local

RATE_SECONDS = 60.0  # over which a rate is taken: the time that an engine takes to start soon falls out


@dataclass
class Work:
    """A piece of work that is counted. total: None where it is not known before.

    first: when it began, and how much of it an earlier attempt had done; seen: when how much was done.
    """

    what: str
    total: int | None
    first: tuple[float, int]
    done: int = 0
    seen: deque[tuple[float, int]] = field(default_factory=deque)


@dataclass
class StepAtWork:
    """A step under way. began: seconds since 1970. before: done in pieces of work of it that have ended."""

    step: str
    stage: int | None
    began: float
    work: Work | None = None
    before: int = 0


@dataclass(frozen=True)
class Doing:
    """A step under way, as it is at a moment.

    began: seconds since 1970. what, done, total: of the piece of work that is counted; None where nothing is,
    or the total is not known. rate: of it, per second, over the last minute. before: done in pieces of work
    before it.
    """

    step: str
    stage: int | None
    began: float
    what: str | None = None
    done: int | None = None
    total: int | None = None
    rate: float | None = None
    before: int = 0


class AtWork:
    """Steps under way in this process; for many threads."""

    def __init__(self) -> None:
        """None so far."""
        self._steps: list[StepAtWork] = []
        self._lock, self._mine = Lock(), local()

    @contextmanager
    def step(self, name: str, stage: int | None) -> Iterator[None]:
        """A step of this thread."""
        step = StepAtWork(name, stage, time.time())
        with self._lock:
            self._steps.append(step)
        self._mine.step = step
        try:
            yield
        finally:
            self._mine.step = None
            with self._lock:
                self._steps.remove(step)

    @contextmanager
    def work(self, what: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """A piece of work of this thread's step; yields what is to be called with how much more is done."""
        step: StepAtWork | None = getattr(self._mine, "step", None)
        work = Work(what, total, (time.time(), 0))
        if step is not None:
            with self._lock:
                step.work = work
        try:
            yield lambda more: self._advance(work, more)
        finally:
            if step is not None:
                with self._lock:
                    step.work, step.before = None, step.before + work.done

    def count_from_here(self) -> None:
        """What is done so far of this thread's piece of work was done by an earlier attempt."""
        step: StepAtWork | None = getattr(self._mine, "step", None)
        with self._lock:
            if step is not None and step.work is not None:
                step.work.first = (time.time(), step.work.done)
                step.work.seen.clear()

    def _advance(self, work: Work, more: int) -> None:
        with self._lock:
            work.done += more

    def now(self) -> list[Doing]:
        """All steps under way. To be asked every few seconds: rates are over what was seen in a minute."""
        with self._lock:
            return [_doing(step, time.time()) for step in self._steps]


def _doing(step: StepAtWork, now: float) -> Doing:
    if step.work is None:
        return Doing(step.step, step.stage, step.began, before=step.before)
    work = step.work
    if not work.seen:
        work.seen.append(work.first)
    work.seen.append((now, work.done))
    while len(work.seen) > 2 and now - work.seen[1][0] >= RATE_SECONDS:  # one that is older stays
        work.seen.popleft()
    told = (
        work.what,
        work.done,
        work.total,
        rate(work.seen[0], work.seen[-1]) or rate(work.first, work.seen[-1]),
    )
    return Doing(step.step, step.stage, step.began, *told, before=step.before)


def rate(first: tuple[float, int], last: tuple[float, int]) -> float | None:
    """Per second, between two (seconds, done); None where nothing was done in between."""
    (begin, before), (end, after) = first, last
    return (after - before) / (end - begin) if after > before and end > begin else None


at_work = AtWork()
