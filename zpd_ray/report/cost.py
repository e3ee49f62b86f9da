"""What a run has spent: seconds and tokens, for selecting and for training, by stage."""

from __future__ import annotations

from dataclasses import dataclass

from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import SELECTING, STEPS, TRAIN, TRAINING, StageFiles
from zpd_ray.rundir.records import Event, load_closing, load_events


@dataclass(frozen=True)
class Cost:
    """Of one stage, or of all, in what ended well: what a killed attempt or scorer had spent is not in it.

    prefilled: tokens of prompts and references that were read; generated: tokens of responses. Both 0 where
    the engine computes none. trained: response tokens of the optimiser's steps, epochs included.
    """

    selecting_seconds: float = 0.0
    training_seconds: float = 0.0
    prefilled: int = 0
    generated: int = 0
    trained: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def ratio(self) -> float | None:
        """Seconds of selecting per second of training; None where nothing was trained."""
        return self.selecting_seconds / self.training_seconds if self.training_seconds else None


def costs(run: Run) -> list[Cost]:
    """By stage, of the stages that are finished."""
    events = load_events(run.store)
    return [cost_of(run, events, stage) for stage in range(run.config.stages)]


def cost_of(run: Run, events: list[Event], stage: int) -> Cost:
    """Of one stage, which may be under way: then of the steps that have ended."""
    seconds = spent(events, stage)
    trained = load_closing(run.store, stage, TRAIN) if run.trains and run.finished(stage, TRAIN) else {}
    done = [
        scorer
        for event in events
        if event.step == "scored" and event.details["into"].startswith(f"{StageFiles(stage).directory}/meas")
        for scorer in event.details["scorers"]
    ]
    return Cost(
        seconds[SELECTING],
        seconds[TRAINING],
        int(sum(scorer.get("prefill_tokens", 0) for scorer in done)),
        int(sum(scorer.get("decode_tokens", 0) for scorer in done)),
        int(trained.get("tokens", 0)),  # a training loop of the user's need not tell its tokens
    )


def spent(events: list[Event], stage: int) -> dict[str, float]:
    """Seconds of a stage by what they were spent on, over the steps that ended well."""
    purposes = {step.name: step.purpose for step in STEPS}
    seconds = {SELECTING: 0.0, TRAINING: 0.0}
    for event in events:
        if event.stage == stage and event.seconds is not None and purposes.get(event.step):
            seconds[purposes[event.step]] += event.seconds
    return seconds
