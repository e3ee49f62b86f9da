"""Training loops that go wrong, for ``train.function``."""

from __future__ import annotations

import zpd_ray


def forgetful() -> None:
    """Trains and says nothing."""
    for stage in zpd_ray.stages():
        list(stage.iter_batches(8))


def mistaken() -> None:
    """An error of the user's own: another attempt would not mend it."""
    for stage in zpd_ray.stages():
        row = next(stage.iter_tokens())
        raise KeyError(f"{sorted(row)} of stage {stage.number}")


def hasty() -> None:
    """Leaves before the stage is finished."""
