"""How long a run will still take: by the rate of the work in hand, and by what the same steps took before."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import median

Seconds = float
Key = tuple[str, int]  # a step and its stage
# Stages whose work differs by a larger factor tell less: part of what a step takes does not go by its work.
ALIKE = 2.0


@dataclass(frozen=True)
class Plan:
    """What a run is going to do.

    steps: of each stage, in order. trains: the name of the step that goes on beside the next stage's, where
    stages overlap; None where they follow each other.
    """

    stages: int
    steps: tuple[str, ...]
    trains: str | None = None


@dataclass(frozen=True)
class InHand:
    """A step under way. seconds: taken so far. left: by its rate; None where that tells nothing."""

    seconds: Seconds
    left: Seconds | None


@dataclass(frozen=True)
class TimeLeft:
    """Seconds for the rest of steps under way, of the first stage that is not finished, and of the run.

    None: not known yet.
    """

    steps: dict[Key, Seconds | None]
    stage: Seconds | None
    run: Seconds | None


def work_left(
    done: int | None, total: int | None, rate: float | None, before: int = 0, whole: float = 0.0
) -> Seconds | None:
    """For the rest of a piece of work at ``rate`` per second, and for what its step counts after it.

    before: done in pieces of the step before this one. whole: what the step counts in all, about; it may turn
    out to be more. None where there is no rate, or no total.
    """
    if done is None or not total or not rate:
        return None
    return max(0.0, total - done, whole - before - done) / rate


def time_left(
    plan: Plan,
    took: Mapping[Key, Seconds],
    finished: Collection[Key],
    now: Mapping[Key, InHand],
    guesses: Mapping[str, Seconds],
    work: Mapping[Key, float] | None = None,
) -> TimeLeft:
    """What is left of a run.

    took: seconds of steps that have ended. finished: these, and those whose seconds nobody has seen. now:
    steps under way. guesses: seconds of steps that have not been seen at any stage. work: how much a step
    does at a stage, where stages differ.

    A step that is still to come takes the median of what it took at other stages, in proportion to its work;
    where it has not ended at any, what it will have taken at this one; else the guess.
    """
    amounts = work or {}

    def typical(step: str, stage: int) -> Seconds | None:
        known = {at: seconds for (name, at), seconds in took.items() if name == step}
        if not known:
            known = {
                at: each.seconds + each.left
                for (name, at), each in now.items()
                if name == step and each.left is not None
            }
        shares = {at: _share(amounts, step, stage, at) for at in known}
        alike = [at for at, share in shares.items() if 1 / ALIKE <= share <= ALIKE]
        scaled = [known[at] * shares[at] for at in alike or known]
        return median(scaled) if scaled else guesses.get(step)

    def left(step: str, stage: int) -> Seconds | None:
        if (step, stage) in finished:
            return 0.0
        usual, in_hand = typical(step, stage), now.get((step, stage))
        if in_hand is None:
            return usual
        if in_hand.left is not None:
            return in_hand.left
        return None if usual is None else max(0.0, usual - in_hand.seconds)

    rests = [{step: left(step, stage) for step in plan.steps} for stage in range(plan.stages)]
    is_open = [any((step, stage) not in finished for step in plan.steps) for stage in range(plan.stages)]
    stage = _sum(rests[is_open.index(True)].values()) if any(is_open) else 0.0
    here = {key: left(*key) for key in now}
    known = [{step: s for step, s in rest.items() if s is not None} for rest in rests]
    if any(len(rest) < len(plan.steps) for rest in known):
        return TimeLeft(here, stage, None)
    run = sum(sum(rest.values()) for rest in known) if plan.trains is None else _side_by_side(known, plan)
    return TimeLeft(here, stage, run)


def _share(amounts: Mapping[Key, float], step: str, stage: int, other: int) -> float:
    """How much of what a step does at the ``other`` stage it does at ``stage``."""
    here, there = amounts.get((step, stage)), amounts.get((step, other))
    return here / there if here and there else 1.0


def _side_by_side(rests: list[dict[str, Seconds]], plan: Plan) -> Seconds:
    """Where a stage trains while the next is measured and selected (``pipeline.run.run_overlapped``)."""
    here = trained = last = 0.0  # when the main thread and the training are so far; the evaluation to come
    for rest in rests:
        before = plan.steps[: plan.steps.index(plan.trains or "")]
        here = max(here + sum(rest[step] for step in before), trained)
        trained = here + rest[plan.trains or ""]
        here += last
        last = sum(rest.values()) - sum(rest[step] for step in before) - rest[plan.trains or ""]
    return max(here, trained) + last


def _sum(seconds: Collection[Seconds | None]) -> Seconds | None:
    known = [each for each in seconds if each is not None]
    return sum(known) if len(known) == len(seconds) else None


def about(seconds: Seconds | None) -> str:
    """In words, as coarse as such figures are: "about 12 min", "unknown yet"."""
    if seconds is None:
        return "unknown yet"
    if seconds < 1:
        return "any moment"
    for limit, unit, length in ((100, "s", 1), (6_000, "min", 60), (48 * 3_600, "h", 3_600)):
        if seconds < limit:
            return f"about {seconds / length:.0f} {unit}"
    return f"about {seconds / 86_400:.0f} days"
