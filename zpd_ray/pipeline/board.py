"""Progress of a training job: its workers tell a small actor, the driver shows what the actor knows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from zpd_ray.pipeline.progress import progress
from zpd_ray.pipeline.session import lasting_actor

POLL_SECONDS = 0.5


class Board:
    """Remembers the last step that was told."""

    def __init__(self) -> None:
        """No step yet."""
        self._steps = 0

    def tell(self, steps: int) -> None:
        """So many steps are done."""
        self._steps = steps

    def steps(self) -> int:
        """Steps done."""
        return self._steps


@contextmanager
def board(what: str, steps: int) -> Iterator[Any]:
    """An actor to tell; a bar follows it from a thread while the caller waits for the training job."""
    actor = lasting_actor(Board)
    ray.get(actor.tell.remote(0))
    finished = threading.Event()

    def follow() -> None:
        shown = 0
        with progress(what, steps) as advance:
            while not finished.wait(POLL_SECONDS):
                done = ray.get(actor.steps.remote())
                advance(done - shown)
                shown = done
            advance(steps - shown if completed else 0)

    completed = False
    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield actor
        completed = True
    finally:
        finished.set()
        thread.join()
