"""Ending this process for another reason than the user's: from any thread, whatever the main thread does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_end: Callable[[str], None] | None = None


@contextmanager
def stopped_by(end: Callable[[str], None]) -> Iterator[None]:
    """Here, ``end`` is what ends the process, with a sentence."""
    global _end
    before, _end = _end, end
    try:
        yield
    finally:
        _end = before


def stop(sentence: str) -> None:
    """End the process; a program that calls us gets a KeyboardInterrupt in its main thread instead."""
    if _end is not None:
        _end(sentence)
        return
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGINT)  # wakes it, too, where it waits in a library
