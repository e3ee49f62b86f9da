"""Whether scorers that have a part in hand still do something; one that does not is ended."""

from __future__ import annotations

import time
from threading import Lock
from typing import Any

import ray

from zpd_ray.engines.base import Pulse
from zpd_ray.pipeline.measure.scorers import Scorers

LOOK_SECONDS = 5.0
MORE_SECONDS = 10.0
LOOKS_PER_SECOND = 100.0  # that one process asks for, whatever the number of scorers


class HungError(Exception):
    """A scorer gave no sign of life for too long, and was ended."""


class Watch:
    """The last signs of life of each scorer; for many threads."""

    def __init__(self, scorers: Scorers) -> None:
        """None so far."""
        self._scorers, self._lock = scorers, Lock()
        self._last: dict[int, tuple[Pulse | None, float]] = {}
        every = min(LOOK_SECONDS, scorers.patience / 4)
        self._every = max(every, len(scorers.actors) / LOOKS_PER_SECOND)

    def wait(self, index: int, reference: Any) -> dict[str, Any]:
        """What a scorer answers, however long it takes, as long as it lives.

        Raises HungError, having ended the scorer, and what ``ray.get`` raises.
        """
        with self._lock:
            self._last.pop(index, None)  # its silence before this part says nothing
        while not ray.wait([reference], timeout=self._every)[0]:
            self._look(index)
        answer: dict[str, Any] = ray.get(reference)
        return answer

    def _look(self, index: int) -> None:
        answered = self._scorers.ask("pulse", [index])
        pulse, now, patience = answered.get(index), time.monotonic(), self._scorers.patience
        with self._lock:
            before, since = self._last.get(index, (None, now))
            loading = index in answered and pulse is None
            moved = pulse is not None and (before is None or pulse != before)
            if loading or moved or index not in self._last:
                self._last[index] = (pulse or before, now)
                return
            # A grader that hangs is named by the scorer itself, which has the same patience: let it.
            if now - since <= patience + max(min(MORE_SECONDS, patience), 2 * self._every):
                return
            del self._last[index]  # another thread that waits for it begins anew, and kills nobody
        ray.kill(self._scorers.actors[index], no_restart=False)
        near = f" near item {before.at!r}" if before is not None and before.at else ""
        raise HungError(f"the engine did nothing for measure.patience = {patience:g} s{near} and was ended")
