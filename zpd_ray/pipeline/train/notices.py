"""Notices that a node will be taken away, as the built-in loop hears of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

ASK_SECONDS = 2.0  # between two questions; Ray itself looks every five seconds


class Asked(Protocol):
    """A stage, as far as it is asked."""

    rank: int

    @property
    def may_be_preempted(self) -> bool:
        """Whether anybody would say so."""
        ...

    def preempted(self) -> bool:
        """Whether it was said; asked by all workers together."""
        ...


class Notices:
    """When to ask whether a node will go, and to save a checkpoint because it will.

    Ray Train's own question is a round trip of all workers to an actor, so it is asked every few seconds and
    not after every step. When that is worker 0's clock says, by one number that all exchange after each step.
    """

    def __init__(
        self, stage: Asked, most: Callable[[float], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """most: the largest of a number over all workers. clock: seconds."""
        self._stage, self._most, self._clock = stage, most, clock
        self._next = clock()  # not to be asked before
        self._said: float | None = None  # when the last answer was yes, if that was the last answer

    def arrived(self) -> bool:
        """Whether to save a checkpoint now, since a node will go; asked by all workers after the same step.

        True again and again until it goes, so that seconds are lost then and not all since the notice; but no
        more time is spent on saving than on training: a pause is as long as it took to save before it.
        """
        if not self._stage.may_be_preempted:
            return False
        now = self._clock()
        if self._said is not None:  # since then a checkpoint was saved, and a step taken
            self._next, self._said = now + max(ASK_SECONDS, now - self._said), None
        if not self._most(float(self._stage.rank == 0 and now >= self._next)):
            return False
        self._next = now + ASK_SECONDS
        if not self._stage.preempted():
            return False
        self._said = self._clock()
        return True
