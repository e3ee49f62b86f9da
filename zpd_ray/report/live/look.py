"""A look at a run directory: is a process at work on it, at what, how far, and how much is left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from zpd_ray.at_work import Doing
from zpd_ray.report.cost import Cost
from zpd_ray.report.live.history import History, StageSoFar, history
from zpd_ray.report.live.time_left import InHand, TimeLeft, about, time_left, work_left
from zpd_ray.rundir.begin import recorded_run
from zpd_ray.rundir.layout import CONFIG, EVENTS, TRAIN
from zpd_ray.rundir.lock import is_held
from zpd_ray.rundir.progress import DONE, TO_MEND, Progress, load_progress, seconds_between
from zpd_ray.rundir.store import Store

SIGNS = 6  # of life that may be missing before a run counts as killed, where no lock tells
NOT_BEGUN, RUNNING, FINISHED = "not begun", "running", "finished"
STOPPED, FAILED, KILLED = "stopped", "failed", "killed"
ENDED = (FINISHED, STOPPED, FAILED, KILLED)


@dataclass(frozen=True)
class Activity:
    """A step under way.

    what, done, total: of the work that is counted. rate: items a second. tokens_per_second: read, where items
    are measured; of responses, where they are trained on. seconds: that the step has taken. left: seconds.
    """

    step: str
    stage: int | None
    what: str | None
    done: int | None
    total: int | None
    rate: float | None
    tokens_per_second: float | None
    seconds: float
    left: float | None


@dataclass(frozen=True)
class Live:
    """A run at a moment.

    state: one of NOT_BEGUN, RUNNING, and ENDED. told: the same in a sentence. exit_code: of the command that
    has ended; of one that was killed, 2. last_sign: seconds since the last sign of life. stage_left,
    run_left: seconds; None: not known yet. stages: those that have begun. count: of all stages; None before
    the pool is read.
    """

    run: str
    state: str
    told: str
    exit_code: int | None
    last_sign: float | None
    doing: list[Activity]
    stage_left: float | None
    run_left: float | None
    count: int | None
    base_accuracy: float | None
    stages: list[StageSoFar]
    cost: Cost


class Look:
    """Looks at one run again and again: only what changes is read anew."""

    def __init__(self, root: str) -> None:
        """root: the run directory, path or URI. It need not be there yet."""
        self.store = Store(root)
        self._events: bytes | None = None
        self._history: History | None = None

    def now(self) -> Live:
        """The run as it is. Raises OSError where it cannot be read, ZpdError for another layout."""
        held_before, progress, held = is_held(self.store), load_progress(self.store), is_held(self.store)
        behind = self._behind()
        at, every = time.time(), seconds_between(self.store)
        # Looked at twice: it may begin or end in between.
        state = state_of(progress, held_before or held, self._begun(), behind, at, every)
        doing = progress.doing if progress is not None and state == RUNNING else []
        left = _left(behind, doing, at) if behind is not None else TimeLeft({}, None, None)
        stages = behind.stages if behind is not None else []
        return Live(
            run=self.store.root,
            state=state,
            told=_sentence(state, progress, held, at),
            exit_code=_code(state, progress),
            last_sign=None if progress is None else max(0.0, at - progress.at),
            doing=[_activity(each, behind, left, at) for each in doing],
            stage_left=left.stage,
            run_left=left.run,
            count=None if behind is None else behind.plan.stages,
            base_accuracy=None if behind is None else behind.base_accuracy,
            stages=stages,
            cost=sum((stage.cost for stage in stages), Cost()),
        )

    def _begun(self) -> bool:
        return self._history is not None or self.store.exists(EVENTS)

    def _behind(self) -> History | None:
        """None before the pool is read: then there is no config yet."""
        events = self.store.read_bytes(EVENTS) if self.store.exists(EVENTS) else b""
        if (self._history is None or events != self._events) and self.store.exists(CONFIG):
            self._history, self._events = history(recorded_run(self.store.uri)), events
        return self._history


def state_of(
    progress: Progress | None, held: bool | None, begun: bool, behind: History | None, at: float, every: float
) -> str:
    """Whether the run is at work, and how it has ended else.

    held: its lock, None where that cannot be seen: then a run is at work as long as its record, which it
    replaces ``every`` seconds, is young. begun: whether a step has ended.
    """
    silent = progress is None or at - progress.at > SIGNS * every
    if held or (held is None and progress is not None and progress.exit_code is None and not silent):
        return RUNNING
    if behind is not None and behind.is_finished:
        return FINISHED
    if progress is None:
        return KILLED if begun else NOT_BEGUN
    if progress.exit_code is None:
        return KILLED
    return STOPPED if progress.exit_code == DONE else FAILED


def _code(state: str, progress: Progress | None) -> int | None:
    if state in (FINISHED, STOPPED):
        return DONE
    if state == KILLED:
        return TO_MEND
    return progress.exit_code if state == FAILED and progress is not None else None


def _sentence(state: str, progress: Progress | None, held: bool | None, at: float) -> str:
    ago = "" if progress is None else f", {_ago(at - progress.at)} ago"
    if state == RUNNING:
        if progress is None or progress.exit_code is not None:
            return "a process has begun to work on it"
        return f"process {progress.pid} on {progress.host} is at work; its last sign of life was{ago[1:]}"
    if state == NOT_BEGUN:
        return "no run has begun there yet: this is the `output` of a run's config, a directory or URI"
    if state == FINISHED:
        return f"all stages are done{ago}"
    if progress is None:
        return "no process is at work on it, and not all stages are done; the same command goes on"
    if state == KILLED:
        lock = "the lock is free" if held is False else "no more is heard of it"
        return f"interrupted or killed: {lock}, its last sign of life was{ago[1:]}; the same command goes on"
    if state == STOPPED:
        return f"`zpd-ray {progress.command}` is done{ago}; `zpd-ray run` goes on"
    return f"`zpd-ray {progress.command}` failed{ago}: {progress.error}"


def _ago(seconds: float) -> str:
    return about(max(1.0, seconds)).removeprefix("about ")


def _left(behind: History, doing: Sequence[Doing], at: float) -> TimeLeft:
    now = {
        (d.step, d.stage): InHand(at - d.began, _step_left(d, behind)) for d in doing if d.stage is not None
    }
    return time_left(behind.plan, behind.took, behind.finished, now, behind.guesses, behind.work)


def _step_left(doing: Doing, behind: History | None) -> float | None:
    """By the rate of its work, and of what its step counts after that."""
    whole = 0.0
    if behind is not None and doing.stage is not None:
        whole = behind.work.get((doing.step, doing.stage), 0.0)
    return work_left(doing.done, doing.total, doing.rate, doing.before, whole)


def _activity(doing: Doing, behind: History | None, left: TimeLeft, at: float) -> Activity:
    rate, tokens = doing.rate, None
    # None for a step of no stage; a guess of nothing is none that a reader should see.
    usual = left.steps.get((doing.step, doing.stage)) or None if doing.stage is not None else None
    if behind is not None and rate is not None:
        rate *= behind.workers if doing.step == TRAIN.name else 1
        tokens = behind.tokens.get((doing.step, doing.stage))
    return Activity(
        step=doing.step,
        stage=doing.stage,
        what=doing.what,
        done=doing.done,
        total=doing.total,
        rate=rate,
        tokens_per_second=None if tokens is None or rate is None else rate * tokens,
        seconds=max(0.0, at - doing.began),
        left=_step_left(doing, behind) if usual is None else usual,
    )
