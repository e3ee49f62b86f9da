"""Progress on the terminal: a bar with rate and time left where there is a screen, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

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
        return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")


_live: list[tuple[Progress, list[TaskID]]] = []  # what is on the screen, and whose bars it shows
_drawing = Lock()


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """``with progress("measuring", 6000) as advance: advance(500)``. Bars of two threads share the screen."""
    if not console.is_terminal:
        yield _lines(what, total)
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


def _lines(what: str, total: int | None) -> Advance:
    """For logs: now and then a line with how far it is, the rate and the time left."""
    started = said = time.monotonic()
    done = 0

    def advance(n: int) -> None:
        nonlocal done, said
        done += n
        now = time.monotonic()
        if now - said < LINE_SECONDS:
            return
        said, rate = now, done / (now - started)
        left = f" of {total:,}, {(total - done) / rate / 60:.0f} min left" if total and done else ""
        say(f"{what}: {done:,}{left}, {rate:,.0f}/s")

    return advance


def say(text: str) -> None:
    """One line for the reader of the log."""
    console.print(text, highlight=False, soft_wrap=True)
