"""Checkpoints inside a stage: stored by Ray Train in the background, while training goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray.train
from ray.train import Checkpoint, CheckpointConsistencyMode, CheckpointUploadMode

from zpd_ray.errors import ZpdError

METADATA = ".metadata.json"  # Ray Train's, which each worker writes alike


def nobody_listens(*_: Any) -> None:
    """For a worker without a controller."""


@dataclass(frozen=True)
class Lines:
    """From a train worker to the stage controller; each has a method of the same name there.

    claim: these are the files that the worker hands in; it answers which of them another worker does.
    """

    report_rows: Callable[[int], Any] = nobody_listens
    report_error: Callable[[str], Any] = nobody_listens
    report_preemption: Callable[[], Any] = nobody_listens
    claim: Callable[[list[str]], dict[str, int]] = lambda names: {}


UNHEARD = Lines()


@dataclass
class Checkpoints:
    """Those of one stage, as one of its workers hands them in.

    mark: tells them from those of other stages. place: a directory of this worker's own, for what is not
    stored yet.
    """

    mark: dict[str, Any]
    rank: int
    place: Path
    lines: Lines
    _taken: int = field(default=0, init=False)

    @contextmanager
    def last(self) -> Iterator[Path | None]:
        """The files of the last checkpoint made inside this stage, of all workers; None where there is none.

        A checkpoint of an earlier stage is not given: that stage's result is in ``adapter`` or ``base``.
        """
        found = ray.train.get_checkpoint()
        if found is None or found.get_metadata() != self.mark:
            yield None
            return
        with found.as_directory() as directory:
            yield Path(directory)

    def save(self, directory: Path | None, move: bool) -> None:
        """See ``Stage.save_checkpoint``."""
        checkpoint = None
        if directory is not None:
            self._check_own(directory)
            self.wait()  # one at a time: each takes room on the local disk
            checkpoint = Checkpoint.from_directory(self._take(directory, move))
            checkpoint.set_metadata(self.mark)
        self._taken += 1
        # Version 2 of Ray Train has them; the type that checkers see is that of version 1.
        how: dict[str, Any] = {
            "checkpoint_upload_mode": CheckpointUploadMode.ASYNC,
            "delete_local_checkpoint_after_upload": True,
            "checkpoint_upload_fn": self._store,
        }
        ray.train.report(self.mark, checkpoint=checkpoint, **how)

    def wait(self) -> None:
        """Until every worker's files of the checkpoints so far are stored, and a new attempt would find them.

        Where they cannot be stored Ray Train ends this process, and starts all workers from the one before.
        """
        if self._taken:
            ray.train.get_all_reported_checkpoints(CheckpointConsistencyMode.COMMITTED)

    def _take(self, directory: Path, move: bool) -> Path:
        own = self.place / f"checkpoint-{self._taken}"
        if move:
            shutil.move(directory, own)
        else:
            shutil.copytree(directory, own)
        return own

    def _store(self, checkpoint: Checkpoint, name: str) -> Checkpoint:
        """As Ray Train does it, in a thread; but where it fails, the reason gets further than Ray's logs."""
        storage: Any = ray.train.get_context().get_storage()
        try:
            stored: Checkpoint = storage.persist_current_checkpoint(checkpoint, name)
        except Exception as error:
            self.lines.report_error(
                f"a checkpoint of stage {self.mark['stage']} could not be stored: {error}"
            )
            raise
        return stored

    def _check_own(self, directory: Path) -> None:
        names = sorted(str(file.relative_to(directory)) for file in directory.rglob("*") if file.is_file())
        others = self.lines.claim([name for name in names if name != METADATA])
        if others:
            name = min(others)
            raise ZpdError(
                f"stage.save_checkpoint got {name} from worker {self.rank}, and from worker {others[name]}: "
                "only one of them would be kept; expected names that differ, such as "
                "f'part-{stage.rank}.safetensors', or None from all but one worker"
            )
