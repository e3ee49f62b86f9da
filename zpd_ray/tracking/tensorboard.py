"""TensorBoard: an event file for each step of the run, in DIR/RUN."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from zpd_ray.tracking.base import Point


class TensorBoard:
    """Each file appears whole or not at all, so that one that is there tells that the step was told."""

    needs: ClassVar[str] = "tensorboardX"

    def __init__(self, target: str, run: str, config: Mapping[str, Any]) -> None:
        """target: the directory that ``tensorboard --logdir`` is given."""
        self._directory = Path(target) / run
        self._directory.mkdir(parents=True, exist_ok=True)

    def log(self, name: str, points: Sequence[Point]) -> None:
        """Write the file, if it is not there."""
        if any(self._directory.glob(f"events.out.tfevents.*.{name}")):
            return
        with tempfile.TemporaryDirectory() as scratch:
            written = _write(scratch, name, points)
            # What TensorBoard does not take for its own until it is renamed.
            part = self._directory / f".{name}.part"
            shutil.copyfile(written, part)
        os.replace(part, self._directory / written.name)

    def close(self) -> None:
        """Everything is written."""


def _write(directory: str, name: str, points: Sequence[Point]) -> Path:
    """The event file of some points, in an empty directory.

    TensorBoard reads the files of a run in the order of their names and does not come back to one: these
    begin with the time, and end with a name that is in order within the same second.
    """
    from tensorboardX import SummaryWriter

    with SummaryWriter(directory, filename_suffix=f".{name}") as writer:
        for point in points:
            for key, value in point.values.items():
                writer.add_scalar(key, value, point.step, walltime=point.at)
    [written] = Path(directory).iterdir()
    return written
