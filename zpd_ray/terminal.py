"""Progress on the terminal: a bar with rate and time left where there is a screen, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LOG_WIDTH = 120  # columns where the output is no terminal
LINE_SECONDS = 60.0  # at least, between two lines about the same work


def _console(to_stderr: bool) -> Console:
    console = Console(stderr=to_stderr)
    return console if console.is_terminal else Console(stderr=to_stderr, width=LOG_WIDTH)


console = _console(to_stderr=True)  # progress and notes
results = _console(to_stderr=False)  # what a command was asked for
Advance = Callable[[int], None]


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(_rate(speed) if speed else "", style="progress.data.speed")


_live: list[tuple[Progress, list[TaskID]]] = []  # what is on the screen, and whose bars it shows
_drawing = Lock()


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """``with progress("measuring", 6000) as advance: advance(500)``. Bars of two threads share the screen."""
    if not console.is_terminal:
        with _Log(what, total).beating() as advance:
            yield advance
        return
    bar, task = _begin(what, total)
    try:
        yield lambda n: bar.advance(task, n)
    finally:
        _end(task)


def _begin(what: str, total: int | None) -> tuple[Progress, TaskID]:
    with _drawing:
        if not _live:
            bar = Progress(*_columns(), console=console)
            bar.start()
            _live.append((bar, []))
        bar, tasks = _live[0]
        tasks.append(bar.add_task(what, total=total))
        return bar, tasks[-1]


def _end(task: TaskID) -> None:
    """The last one that ends leaves its bars on the screen."""
    with _drawing:
        bar, tasks = _live[0]
        tasks.remove(task)
        if not tasks:
            _live.pop()
            bar.stop()


def _columns() -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


class _Log:
    """Now and then a line with how far the work is, the rate and the time left; also where nothing moves."""

    def __init__(self, what: str, total: int | None) -> None:
        self._what, self._total, self._done = what, total, 0
        self._started = self._said = time.monotonic()
        self._lock, self._ended = Lock(), Event()

    @contextmanager
    def beating(self) -> Iterator[Advance]:
        thread = Thread(target=self._beat, daemon=True)
        thread.start()
        try:
            yield self.advance
        finally:
            self._ended.set()
            thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(LINE_SECONDS / 4):
            self.advance(0)

    def advance(self, n: int) -> None:
        with self._lock:
            self._done += n
            now = time.monotonic()
            if now - self._said < 0.75 * LINE_SECONDS:  # looked at every quarter: a line within LINE_SECONDS
                return
            self._said = now
            say(f"{self._what}: {self._state(now - self._started)}")

    def _state(self, seconds: float) -> str:
        done, total = self._done, self._total
        if not done:
            return f"{'none' if total is None else f'none of {total:,}'} yet, after {seconds:.0f} s"
        left = f" of {total:,}, {_duration((total - done) / done * seconds)} left" if total else ""
        return f"{done:,}{left}, {_rate(done / seconds)}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _rate(per_second: float) -> str:
    """Slow work is told as seconds per item."""
    return f"{per_second:,.0f}/s" if per_second >= 1 else f"{1 / per_second:,.1f} s each"


def say(text: str) -> None:
    """One line for the reader of the log."""
    console.print(text, highlight=False, soft_wrap=True)
