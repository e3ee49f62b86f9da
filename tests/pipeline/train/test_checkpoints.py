"""Checkpoints inside a stage: what Ray Train is handed, and what a worker waits for. Without Ray."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.train
from ray.train import Checkpoint, CheckpointConsistencyMode, CheckpointUploadMode

from zpd_ray.pipeline.train.checkpoints import Checkpoints, Lines

MARK = {"run": "/runs/mine", "stage": 3}


@dataclass
class RayTrain:
    """What of it is called, in order; ``failure`` is what storing ends with."""

    calls: list[Any] = field(default_factory=list)
    failure: Exception | None = None

    def report(self, metrics: dict[str, Any], **options: Any) -> None:
        self.calls.append((metrics, options))

    def get_all_reported_checkpoints(self, mode: CheckpointConsistencyMode) -> None:
        self.calls.append(mode)

    def get_context(self) -> Any:
        return SimpleNamespace(get_storage=lambda: self)

    def persist_current_checkpoint(self, checkpoint: Checkpoint, name: str) -> Checkpoint:
        if self.failure:
            raise self.failure
        return Checkpoint(f"{checkpoint.path}/{name}")


@pytest.fixture
def ray_train(monkeypatch: pytest.MonkeyPatch) -> RayTrain:
    made = RayTrain()
    for name in ("report", "get_all_reported_checkpoints", "get_context"):
        monkeypatch.setattr(ray.train, name, getattr(made, name))
    return made


def state(place: Path, content: str) -> Path:
    (place / "state").mkdir(exist_ok=True)
    (place / "state/weights").write_text(content)
    return place / "state"


def checkpoints(place: Path, lines: Lines | None = None) -> Checkpoints:
    (place / "own").mkdir()
    return Checkpoints(MARK, 0, place / "own", lines or Lines())


def test_what_is_stored_is_what_was_handed_in_whatever_becomes_of_the_directory(
    ray_train: RayTrain, tmp_path: Path
) -> None:
    checkpoints(tmp_path).save(state(tmp_path, "one"), move=False)
    state(tmp_path, "two")
    ((metrics, options),) = ray_train.calls
    assert metrics == MARK
    assert (Path(options["checkpoint"].path) / "weights").read_text() == "one"
    assert options["checkpoint"].get_metadata() == MARK
    assert options["checkpoint_upload_mode"] == CheckpointUploadMode.ASYNC
    assert options["delete_local_checkpoint_after_upload"] is True
    assert [file.name for file in (tmp_path / "state").iterdir()] == ["weights"]  # nothing is put into it


def test_a_directory_that_is_moved_is_gone(ray_train: RayTrain, tmp_path: Path) -> None:
    checkpoints(tmp_path).save(state(tmp_path, "one"), move=True)
    assert not (tmp_path / "state").exists()
    assert (Path(ray_train.calls[0][1]["checkpoint"].path) / "weights").read_text() == "one"


def test_the_one_before_is_stored_before_the_next_is_taken(ray_train: RayTrain, tmp_path: Path) -> None:
    """So the local disk holds one at a time, and none is waited for before there is any."""
    made = checkpoints(tmp_path)
    made.wait()
    assert ray_train.calls == []
    for content in ("one", "two"):
        made.save(state(tmp_path, content), move=True)
    made.wait()
    committed = CheckpointConsistencyMode.COMMITTED
    assert [call if call == committed else "report" for call in ray_train.calls] == [
        "report",
        committed,
        "report",
        committed,
    ]
    places = {call[1]["checkpoint"].path for call in ray_train.calls if call != committed}
    assert len(places) == 2


def test_a_worker_with_nothing_to_keep_takes_part(ray_train: RayTrain, tmp_path: Path) -> None:
    made = checkpoints(tmp_path)
    made.save(None, move=False)
    assert ray_train.calls[0][1]["checkpoint"] is None
    made.wait()
    assert ray_train.calls[1:] == [CheckpointConsistencyMode.COMMITTED]


def test_why_it_could_not_be_stored_is_told(ray_train: RayTrain, tmp_path: Path) -> None:
    told: list[str] = []
    checkpoints(tmp_path, Lines(report_error=told.append)).save(state(tmp_path, "one"), move=False)
    options = ray_train.calls[0][1]
    store = options["checkpoint_upload_fn"]
    assert store(options["checkpoint"], "name").path.endswith("/name")
    assert told == []
    ray_train.failure = OSError("no space left")
    with pytest.raises(OSError, match="no space"):  # Ray Train starts the workers anew
        store(options["checkpoint"], "name")
    assert told == ["a checkpoint of stage 3 could not be stored: no space left"]
