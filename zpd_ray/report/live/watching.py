"""Watching a run until it ends: a picture that is drawn anew, lines in a log, or JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from rich.live import Live as Screen

from zpd_ray.errors import ZpdError
from zpd_ray.report.live.drawing import draw, drawing, line
from zpd_ray.report.live.look import ENDED, Live, Look
from zpd_ray.rundir.progress import REMOTE_SECONDS
from zpd_ray.terminal import LINE_SECONDS, results, show

LOOK_SECONDS = 1.0  # on an object store as often as it is written


def watch(root: str, once: bool, as_json: bool) -> int:
    """Show a run until it ends, or once; its exit code (0 for ``once``).

    Raises ZpdError where the directory cannot be read.
    """
    look = Look(root)
    if once:
        show(_now(look), draw)
        return 0
    first = _now(look)
    lives = chain([first], _following(look, first))
    if as_json:
        last = _told(lives)
    elif results.is_interactive and results.file.isatty():
        last = _on_screen(lives)
    else:
        last = _in_lines(lives)
    return last.exit_code or 0


def _now(look: Look) -> Live:
    try:
        return look.now()
    except OSError as problem:
        raise ZpdError(
            f"cannot read the run directory {look.store.root}: {problem}; give the path or URI that the "
            "run's config names as `output`, which must be readable from here"
        ) from problem


def _following(look: Look, live: Live) -> Iterator[Live]:
    """Until the run has ended."""
    while live.state not in ENDED:
        time.sleep(LOOK_SECONDS if look.store.is_local else REMOTE_SECONDS)
        live = _now(look)
        yield live


def _on_screen(lives: Iterator[Live]) -> Live:
    live = next(lives)
    with Screen(drawing(live), console=results, auto_refresh=False) as screen:
        for live in lives:
            screen.update(drawing(live), refresh=True)
    return live


def _told(lives: Iterator[Live]) -> Live:
    """As JSON, where more than the time has changed."""
    before = None
    for live in lives:
        if (key := _without_time(live)) != before:
            show(live, draw)
        before = key
    return live


def _without_time(live: Live) -> Live:
    doing = [replace(each, seconds=0.0) for each in live.doing]
    return replace(live, told="", last_sign=None, doing=doing, stage_left=None, run_left=None)


def _in_lines(lives: Iterator[Live]) -> Live:
    """A line where a step has begun or ended, and every minute."""
    before, said = None, 0.0
    for live in lives:
        steps = (live.state, [(each.step, each.stage) for each in live.doing])
        if steps != before or time.monotonic() - said >= LINE_SECONDS:
            results.print(line(live), highlight=False, soft_wrap=True)
            said = time.monotonic()
        before = steps
    return live
