"""TensorBoard's event files, read back."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tracking.conftest import MakeRun, expected, reopen
from zpd_ray.rundir.layout import TRACKING
from zpd_ray.tracking.telling import Telling, tracked

pytest.importorskip("tensorboardX")


def events(file: Path) -> Iterator[Any]:
    """The events of a file: length, checksum, protocol buffer, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    content = file.read_bytes()
    while content:
        [length] = struct.unpack_from("<Q", content)
        event = Event()
        event.ParseFromString(content[12 : 12 + length])
        yield event
        content = content[16 + length :]


def scalars(directory: Path) -> list[tuple[tuple[str, int], float]]:
    """All that is in a run's directory, in the order in which TensorBoard reads it."""
    return [
        ((value.tag, event.step), value.simple_value)
        for file in sorted(directory.iterdir())
        for event in events(file)
        for value in event.summary.value
    ]


def directory_of(logs: Path) -> Path:
    [directory] = logs.iterdir()
    return directory


def test_everything_is_there_once_and_in_order(make_run: MakeRun, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    run = make_run(tensorboard=str(logs))
    with tracked(run):
        pass
    found, directory = scalars(directory_of(logs)), directory_of(logs)
    assert directory.name == run.store.read_json(TRACKING)["run"]
    assert directory.name.startswith("mine-1-")
    assert max(Counter(place for place, _ in found).values()) == 1
    assert dict(found) == pytest.approx(expected(run), rel=1e-6)  # TensorBoard keeps float32
    for tag in {tag for (tag, _), _ in found}:
        steps = [step for (name, step), _ in found if name == tag]
        assert steps == sorted(steps)


def test_a_run_that_is_killed_at_any_step_tells_nothing_twice(make_run: MakeRun, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    run = make_run(tensorboard=str(logs))
    back = reopen(run, 1, "train.json"), reopen(run, 1, "metrics.json")
    Telling(run).tell()
    before = dict(scalars(directory_of(logs)))
    assert ("train/loss", 2) in before
    assert ("train/loss", 3) not in before
    for put in back:
        put()
    # Killed after TensorBoard had a step, and before the run directory says so.
    run.store.write_json(TRACKING, run.store.read_json(TRACKING) | {"told": {}})
    (directory_of(logs) / ".stage-01-2-train.part").touch()
    Telling(run).tell()
    found = scalars(directory_of(logs))
    assert max(Counter(place for place, _ in found).values()) == 1
    assert dict(found) == pytest.approx(expected(run), rel=1e-6)


def test_another_directory_is_told_everything(make_run: MakeRun, tmp_path: Path) -> None:
    for name in ("one", "other"):
        run = make_run(tensorboard=str(tmp_path / name))
        Telling(run).tell()
        assert dict(scalars(directory_of(tmp_path / name))) == pytest.approx(expected(run), rel=1e-6)
    assert directory_of(tmp_path / "one").name == directory_of(tmp_path / "other").name
