"""One learning-rate schedule, by default over the whole run: later stages do not start hot again."""

from __future__ import annotations

import math

from zpd_ray.config import TrainConfig


def learning_rate(train: TrainConfig, stage: int, stages: int, step: int, steps: int) -> float:
    """Learning rate of optimiser step ``step`` of ``steps`` in ``stage`` of ``stages`` (all from 0).

    Linear warm-up over the first ``train.warmup`` of the schedule, then cosine or linear decay to 0, or
    constant. The last step of the schedule is not quite 0: the rate is taken at the middle of the step.
    """
    done = (step + 0.5) / steps
    if train.schedule_over == "run":
        done = (stage + done) / stages
    if done < train.warmup:
        return train.learning_rate * done / train.warmup
    left = (1.0 - done) / (1.0 - train.warmup) if train.warmup < 1 else 1.0
    factor = {"constant": 1.0, "linear": left, "cosine": 0.5 * (1.0 + math.cos(math.pi * (1.0 - left)))}
    return train.learning_rate * factor[train.schedule]
