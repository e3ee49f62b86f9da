"""Rates with their spread: what a timed sample says of a piece of work of any size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Seconds:
    """An estimate, and its standard error; 0 where it was timed once or follows from nothing that varies."""

    seconds: float
    se: float = 0.0

    def __add__(self, other: Seconds) -> Seconds:
        """Of things that vary independently."""
        return Seconds(self.seconds + other.seconds, math.hypot(self.se, other.se))


def in_step(estimates: Iterable[Seconds]) -> Seconds:
    """The sum of estimates that stand on the same rate: they are too high or too low together."""
    listed = list(estimates)
    return Seconds(sum(each.seconds for each in listed), sum(each.se for each in listed))


@dataclass(frozen=True)
class Line:
    """seconds = fixed + each * amount.

    middle: the mean amount that was timed. middle_se: standard error of the seconds there; each_se: of
    ``each``. Both grow into the error of what lies away from the middle.
    """

    fixed: float
    each: float
    each_se: float = 0.0
    middle: float = 0.0
    middle_se: float = 0.0

    def at(self, amount: float) -> Seconds:
        """Of so much work; nothing takes no time."""
        if amount <= 0:
            return Seconds(0.0)
        error = math.hypot(self.middle_se, self.each_se * (amount - self.middle))
        return Seconds(self.fixed + self.each * amount, error)


def fit_line(amounts: Sequence[float], seconds: Sequence[float]) -> Line:
    """Least squares through what was timed, neither part below 0: work costs no less for being more.

    amounts, seconds: (n,), n >= 1. Standard errors are those of simple regression; 0 with fewer than three
    points, which say nothing of the spread.
    """
    x, y = np.asarray(amounts, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
    spread = float(((x - x.mean()) ** 2).sum())
    each = float(((x - x.mean()) * (y - y.mean())).sum()) / spread if spread > 0 else math.inf
    if each > 0 and each * x.mean() > y.mean():  # no fixed part: a line through the origin
        each = float((x * y).sum() / (x * x).sum())
    each = max(0.0, each)
    fixed = max(0.0, float(y.mean() - each * x.mean()))
    left = y - fixed - each * x
    noise = math.sqrt(float((left**2).sum()) / (len(x) - 2)) if len(x) > 2 else 0.0
    each_se = noise / math.sqrt(spread) if spread > 0 else 0.0
    return Line(fixed, each, each_se, float(x.mean()), noise / math.sqrt(len(x)))


def mean_line(seconds: Sequence[float], amounts: Sequence[float]) -> Line:
    """A rate without a fixed part, from blocks of work: their total ratio, and its standard error."""
    y, x = np.asarray(seconds, dtype=np.float64), np.asarray(amounts, dtype=np.float64)
    each = float(y.sum() / x.sum())
    left = y - each * x
    noise = math.sqrt(float((left**2).sum()) / max(1, len(x) - 1))
    return Line(0.0, each, noise * math.sqrt(len(x)) / float(x.sum()))


@dataclass(frozen=True)
class Phases:
    """The same work with the base model at stage 0, and with what a stage has trained at those after."""

    first: Line
    later: Line

    def of(self, stage: int) -> Line:
        """Of this stage."""
        return self.later if stage else self.first


@dataclass(frozen=True)
class Memory:
    """Of one process at its peak, GiB: main memory, that of its GPU, and what the GPU has (0: no GPU)."""

    main: float = 0.0
    gpu: float = 0.0
    gpu_has: float = 0.0


@dataclass(frozen=True)
class Rates:
    """What was timed.

    start, end: seconds from the command to a Ray that works, and to end it. ingest: over rows. rehearse:
    seconds. engine_start: seconds until the first item is measured; engine_again: with each new model, be it
    a swap or a new start. measuring (all measures together), evaluating: over item tokens of the actor that
    has most of them. fit, select: over items measured, and over items of the pool. train_start: seconds of a
    training step of the first stage and of those after, beside the rows; training: over rows of all epochs.
    read: tokens that the engine reads per token of the items; generated: tokens per item, of all its
    rollouts. actor, worker: memory.
    """

    start: float
    ingest: Line
    rehearse: float
    engine_start: float
    engine_again: float
    measuring: Phases
    evaluating: Phases
    fit: Phases
    select: Phases
    train_start: tuple[float, float]
    training: Line
    read: float
    generated: float
    actor: Memory
    worker: Memory
    end: float
