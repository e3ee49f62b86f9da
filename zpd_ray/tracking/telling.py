"""Telling the trackers of a run what has closed, in a thread of its own: a run never waits for a tracker."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from threading import Event, Thread
from typing import Any

from zpd_ray.config_file import flat
from zpd_ray.errors import first_line
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import TRACKING
from zpd_ray.rundir.progress import seconds_between
from zpd_ray.terminal import warn
from zpd_ray.tracking import TRACKERS, Tracker
from zpd_ray.tracking.figures import closed, figures

PATIENCE = 30.0  # seconds that the end of a command waits for trackers


@contextmanager
def tracked(run: Run) -> Iterator[None]:
    """Tell the config's trackers what closes while this is entered, and whatever they miss of it before."""
    if not run.config.track.targets:
        yield
        return
    ended = Event()
    thread = Thread(target=_follow, args=(Telling(run), ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(PATIENCE)
        if thread.is_alive():
            warn(
                f"trackers take longer than {PATIENCE:g} s and are not waited for; the same command tells "
                "them what they miss"
            )


def _follow(telling: Telling, ended: Event) -> None:
    """Look now and then, and once more at the end."""
    last = False
    while not last:
        last = ended.wait(seconds_between(telling.run.store))
        telling.tell()
    telling.close()


class Telling:
    """What a run has to tell, and its trackers as long as they are open.

    What each was told stands in tracking.json, so that a resumed run goes on from there; under another target
    a tracker is another one, and told everything.
    """

    def __init__(self, run: Run) -> None:
        """No tracker is opened before there is something to tell."""
        self.run = run
        self._open: dict[str, Tracker] = {}
        self._sent: dict[str, list[str]] = {}  # to each that is open, and not in tracking.json yet
        self._closed: list[str] = []
        self._failing = set[str]()

    def tell(self) -> None:
        """Whatever has closed since, and what failed when the step before had closed. Raises nothing."""
        try:
            now = closed(self.run, self._closed)
        except Exception as problem:  # the run directory cannot be read, for the moment: looked at again
            for name in self.run.config.track.targets:
                self._warn(name, problem)
            return
        if now == self._closed:
            return
        self._closed = now
        for name, target in self.run.config.track.targets.items():
            self._tell(name, target)

    def close(self) -> None:
        """Let the trackers send what they keep back."""
        for name, target in self.run.config.track.targets.items():
            try:
                if name in self._open:
                    self._open.pop(name).close()
                    self._count(name, target)
            except Exception as problem:
                self._warn(name, problem)

    def _tell(self, name: str, target: str) -> None:
        try:
            record = self._record()
            told = {*record["told"].get(_key(name, target), ()), *self._sent.get(name, ())}
            for step in [step for step in self._closed if step not in told]:
                tracker = self._tracker(name, target, record["run"])
                tracker.log(step, figures(self.run, step))
                self._sent[name].append(step)
                if not getattr(tracker, "keeps_back", False):
                    self._count(name, target)
        except Exception as problem:
            self._open.pop(name, None)  # it is opened anew; to close it would ask a server that is down
            self._sent.pop(name, None)
            self._warn(name, problem)
        else:
            self._failing.discard(name)

    def _count(self, name: str, target: str) -> None:
        """What was sent is told."""
        record = self._record()
        record["told"].setdefault(_key(name, target), []).extend(self._sent[name])
        self._sent[name] = []
        self.run.store.write_json(TRACKING, record)

    def _record(self) -> dict[str, Any]:
        """tracking.json; a new one where there is none."""
        if self.run.store.exists(TRACKING):
            record: dict[str, Any] = self.run.store.read_json(TRACKING)
            return record
        directory = re.sub(r"[^A-Za-z0-9_.]+", "-", PurePosixPath(self.run.store.root).name)
        record = {"run": f"{directory}-{uuid.uuid4().hex[:8]}", "told": {}}
        self.run.store.write_json(TRACKING, record)  # before any tracker knows the name
        return record

    def _tracker(self, name: str, target: str, run: str) -> Tracker:
        if name not in self._open:
            config = flat(self.run.config.model_dump(mode="json", exclude_none=True, exclude={"track"}))
            self._open[name] = TRACKERS.load(name)(target, run, config)
            self._sent[name] = []
        return self._open[name]

    def _warn(self, name: str, problem: Exception) -> None:
        """Once, until it works again."""
        if name not in self._failing:
            self._failing.add(name)
            warn(
                f"the tracker {name} cannot be told how this run does: {first_line(problem)}; the run goes "
                "on, and what is missing is told when the next step closes, or by the same command"
            )


def _key(name: str, target: str) -> str:
    return f"{name} {target}"
