"""What a command shows: results on stdout, drawn or as JSON; all else on stderr.

On a screen something moves while a command works: bars with rate and time left, else a spinner. A log gets a
line at least every LINE_SECONDS. What was asked for, and what is on the screen, stands in ``_state``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from threading import Event, Lock, RLock, Thread
from typing import TextIO, TypeVar

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from zpd_ray.at_work import at_work
from zpd_ray.plain import to_json

LOG_WIDTH = 120  # columns where the output is no terminal
LINE_SECONDS = 60.0  # at most, between two lines of a log
SPINS = 4  # a second: enough to be seen, and next to nothing of a core

T = TypeVar("T")


def _console(to_stderr: bool) -> Console:
    console = Console(stderr=to_stderr)
    return console if console.is_terminal else Console(stderr=to_stderr, width=LOG_WIDTH)


console = _console(to_stderr=True)  # progress and notes
results = _console(to_stderr=False)  # what a command was asked for
Advance = Callable[[int], None]


@dataclass
class _State:
    """quiet: results, warnings and errors alone. json: where results go as JSON; None: they are drawn."""

    quiet: bool = False
    json: TextIO | None = None
    what: str = ""  # a command is at; "": none is at work, or it shows a result
    since: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)  # when the log has had its last line
    logs: int = 0  # pieces of work that tell a log how far they are
    note: str = ""  # a line below bars and spinner
    spinner: Progress | None = None
    bars: Progress | None = None
    tasks: list[TaskID] = field(default_factory=list)  # whose bars are shown
    drawing: RLock = field(default_factory=RLock)


_state = _State()


@contextmanager
def quietly() -> Iterator[None]:
    """Results, warnings and errors alone."""
    _state.quiet = True
    try:
        yield
    finally:
        _state.quiet = False


@contextmanager
def in_json() -> Iterator[None]:
    """Results as JSON on stdout and nothing else there: what anyone prints goes to stderr."""
    _state.json = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _state.json = None


def show(result: T, draw: Callable[[T], None]) -> None:
    """What a command was asked for: drawn, or a line of JSON.

    result: as ``plain.to_json`` takes it. A command shows one.
    """
    with _spinner_off():
        if _state.json is None:
            draw(result)
        else:
            print(to_json(result), file=_state.json, flush=True)


def show_error(sentence: str) -> None:
    """Why a command could not do it."""
    print(f"zpd-ray: {sentence}", file=sys.stderr, flush=True)
    if _state.json is not None:
        show({"error": sentence}, lambda _: None)


def say(text: str) -> None:
    """One line for who watches, or reads the log: how far it is, a note."""
    if not _state.quiet:
        _print(text)


def warn(text: str) -> None:
    """One line that who asked for quiet must read, too: what makes the result doubtful, or is dangerous."""
    _print(f"warning: {text}")


def _print(text: str) -> None:
    _state.said = time.monotonic()
    console.print(text, highlight=False, markup=False, soft_wrap=True)  # [extras] are no markup


@contextmanager
def alive(what: str) -> Iterator[None]:
    """Show that a command is at work, wherever it shows nothing else; ``doing`` says at what."""
    ended = Event()
    thread = Thread(target=_beat, args=(ended,), daemon=True)
    _set_doing(what)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        _set_doing("")
        thread.join()


def doing(what: str) -> None:
    """What the command is at from now on; nothing outside ``alive``."""
    if _state.what:
        _set_doing(what)


def note(text: str) -> None:
    """What stands below that which moves from now on, until a bar ends."""
    _state.note = text


def clear() -> None:
    """Take from the screen what moves: for a process that ends in the midst of its work."""
    with _state.drawing:
        if _state.bars is not None:
            _state.bars.stop()
        _set_doing("")


def _set_doing(what: str) -> None:
    with _state.drawing:
        _state.what, _state.since = what, time.monotonic()
        _spin()


def _beat(ended: Event) -> None:
    """In a log, a line where no work with a ``progress`` of its own writes one."""
    while not ended.wait(LINE_SECONDS / 8):
        now = time.monotonic()
        if not _moves() and not _state.logs and now - _state.said >= 0.75 * LINE_SECONDS:
            say(f"{_state.what}: {_duration(now - _state.since)} so far")


def _moves() -> bool:
    """Whether there is a screen to draw on; with FORCE_COLOR a log has colours and still is none."""
    return console.is_interactive and console.file.isatty()


def _spin() -> None:
    """Begin, change or end the spinner: it is there where a command is at something, and no bar moves."""
    if _state.spinner is not None:
        _state.spinner.stop()
        _state.spinner = None
    if _state.what and not _state.tasks and not _state.quiet and _moves():
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        spinner = _Moving(*columns, console=console, transient=True, refresh_per_second=SPINS)
        spinner.add_task(_state.what, total=None)
        spinner.start()
        _state.spinner = spinner


@contextmanager
def _spinner_off() -> Iterator[None]:
    what = _state.what
    _set_doing("")
    try:
        yield
    finally:
        _set_doing(what)


class _Moving(Progress):
    """Bars or a spinner, and the note."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if _state.note:
            yield Text(_state.note, style="dim", overflow="ellipsis", no_wrap=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(_rate(speed) if speed else "", style="progress.data.speed")


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """``with progress("measuring", 6000) as advance: advance(500)``. Bars of two threads share the screen."""
    with at_work.work(what, total) as count, _shown(what, total) as draw:

        def advance(n: int) -> None:
            count(n)
            draw(n)

        yield advance


@contextmanager
def _shown(what: str, total: int | None) -> Iterator[Advance]:
    if _state.quiet:
        yield lambda n: None
        return
    if not _moves():
        with _Log(what, total).beating() as advance:
            yield advance
        return
    bar, task = _begin(what, total)
    try:
        yield lambda n: bar.advance(task, n)
    finally:
        _end(task)


def _begin(what: str, total: int | None) -> tuple[Progress, TaskID]:
    with _state.drawing:
        bar = _state.bars or _Moving(*_columns(), console=console)
        task = bar.add_task(what, total=total)
        _state.tasks.append(task)
        if _state.bars is None:
            _spin()  # which ends
            bar.start()
            _state.bars = bar
        return bar, task


def _end(task: TaskID) -> None:
    """The last one that ends leaves its bars on the screen."""
    with _state.drawing:
        _state.tasks.remove(task)
        if not _state.tasks and _state.bars is not None:
            _state.note = ""  # it is of a moment, and does not stay
            _state.bars.stop()
            _state.bars = None
            _spin()


def _columns() -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


def _count_logs(more: int) -> None:
    with _state.drawing:
        _state.logs += more


class _Log:
    """Now and then a line with how far the work is, the rate and the time left; also where nothing moves."""

    def __init__(self, what: str, total: int | None) -> None:
        self._what, self._total, self._done = what, total, 0
        self._started, self._said = time.monotonic(), _state.said
        self._lock, self._ended = Lock(), Event()

    @contextmanager
    def beating(self) -> Iterator[Advance]:
        thread = Thread(target=self._beat, daemon=True)
        thread.start()
        _count_logs(1)
        try:
            yield self.advance
        finally:
            _count_logs(-1)
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
            say(f"{self._what}: {self._how_far(now - self._started)}")

    def _how_far(self, seconds: float) -> str:
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
