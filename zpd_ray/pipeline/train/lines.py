"""What a train worker tells the stage controller while a stage is under way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray


def nobody_listens(*_: Any) -> None:
    """For a worker without a controller."""


@dataclass(frozen=True)
class Lines:
    """From a train worker to the stage controller; each has a method of the same name there.

    claim: these are the files that the worker hands in; it answers which of them another worker does.
    report_saving: the worker saves a checkpoint, its first (1), second ... of the stage, and waits for the
    others to do so, too.
    """

    report_rows: Callable[[int], Any] = nobody_listens
    report_error: Callable[[str], Any] = nobody_listens
    report_preemption: Callable[[], Any] = nobody_listens
    report_saving: Callable[[int], Any] = nobody_listens
    claim: Callable[[list[str]], dict[str, int]] = lambda names: {}


UNHEARD = Lines()


def lines_to(controller: Any, rank: int) -> Lines:
    """Those of worker ``rank``."""
    return Lines(
        controller.report_rows.remote,
        lambda error: ray.get(controller.report_error.remote(error)),
        controller.report_preemption.remote,
        partial(controller.report_saving.remote, rank),
        partial(_claim, controller, rank),
    )


def _claim(controller: Any, rank: int, names: list[str]) -> dict[str, int]:
    others: dict[str, int] = ray.get(controller.claim.remote(rank, names))
    return others
