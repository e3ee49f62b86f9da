"""How far a measurement is, also within parts: what scorers say they have done of those in hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread

from zpd_ray.pipeline.measure.scorers import GLANCE_SECONDS, Scorers
from zpd_ray.terminal import Advance

ASK_SECONDS = 2.0


class Ticks:
    """Never goes back, nor beyond what is there: a scorer that is restarted counts from zero again."""

    def __init__(self, advance: Advance, total: int) -> None:
        """advance: of a progress bar over ``total`` items."""
        self._advance, self._total, self._lock = advance, total, Lock()
        self._shown = self._finished = 0

    def finish(self, items: int) -> None:
        """A part of so many items is finished."""
        with self._lock:
            self._finished += items
            self._show(self._finished)

    @contextmanager
    def watching(self, pool: Scorers, passes: int) -> Iterator[None]:
        """Ask the scorers now and then. passes: how often they compute an item (``Measure``)."""
        ended, earlier = Event(), self._finished

        def ask() -> None:
            before = pool.items_done()
            while not ended.wait(ASK_SECONDS):
                done = earlier + (pool.items_done() - before) // passes
                with self._lock:
                    # A scorer that is away is waited for, maybe for longer than the bar is there.
                    if not ended.is_set():
                        self._show(min(done, self._total))

        thread = Thread(target=ask, daemon=True)
        thread.start()
        try:
            yield
        finally:
            with self._lock:
                ended.set()
            thread.join(2 * GLANCE_SECONDS)  # it must not ask a Ray that has ended

    def _show(self, items: int) -> None:
        if items > self._shown:
            self._advance(items - self._shown)
            self._shown = items
