"""What a tracker is told, and what it must have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Axis = Literal["stage", "optimizer_step"]


@dataclass(frozen=True)
class Point:
    """Figures at one place of an axis.

    step: the stage, or the optimiser step counted over all stages; both from 0. at: when the step of the run
    ended that they come from, seconds since 1970. values: by name, as in ``cost/training_seconds``; a loss
    may be NaN or infinite.
    """

    axis: Axis
    step: int
    at: float
    values: dict[str, float]


class Tracker(Protocol):
    """Where figures of one run go. Whatever it raises is told to the user and ends no run.

    A class may name in ``needs`` the module of the library that it imports when it is made. One whose library
    keeps things back sets ``keeps_back = True``: what it was told then counts when ``close`` returns.
    """

    def __init__(self, target: str, run: str, config: Mapping[str, Any]) -> None:
        """Open the run, or open it again: it is made anew by each command, and after each failure.

        target: the value of the config's key. run: a name that no other run has, and the same at each
        opening. config: the run's, flat: value by key, as in ``select.method``.
        """
        ...

    def log(self, name: str, points: Sequence[Point]) -> None:
        """What a step of the run has come to; it counts as told when this returns (but see ``keeps_back``).

        name: of the step, such as ``stage-00-3-train``, once for each run. It comes again, with the same
        points, where an attempt failed or was killed before it counted: nothing should then be there twice.
        """
        ...

    def close(self) -> None:
        """The command ends; send what is still under way."""
        ...
