"""The folder of a Ray of our own, without Ray; with it: tests/pipeline/cluster/test_local_ray.py."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from zpd_ray import ray_folder
from zpd_ray.errors import ZpdError


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """For folders; the one of the tests' own Ray, if there is one, is out of the way."""
    monkeypatch.setattr(ray_folder, "_folder", None)
    monkeypatch.delenv(ray_folder.LOGS_VARIABLE, raising=False)
    with tempfile.TemporaryDirectory(prefix="zr-", dir="/tmp") as directory:  # a short name
        monkeypatch.setenv("RAY_TMPDIR", directory)
        yield Path(directory)


def test_made_for_its_owner_and_removed_with_all_in_it(place: Path) -> None:
    folder = ray_folder.make()
    assert folder.parent == place
    assert folder.stat().st_mode & 0o777 == 0o700
    (ray_folder.temp_dir(folder) / "logs").mkdir(parents=True)
    assert ray_folder.ray_logs() == f"the Ray logs in {folder}/r/session_latest/logs"
    ray_folder.remove()
    assert list(place.iterdir()) == []
    assert ray_folder.ray_logs() == "the Ray logs"


def test_what_is_kept_is_not_removed(place: Path) -> None:
    folder = ray_folder.make()
    assert ray_folder.keep() == f"{folder}/r/session_latest/logs"
    ray_folder.remove()
    assert folder.exists()
    assert ray_folder.keep() == ""


def test_removed_though_somebody_is_still_writing(place: Path) -> None:
    folder = ray_folder.make()

    deadline = time.monotonic() + 0.3

    def write() -> None:
        with suppress(FileNotFoundError):  # the folder is gone
            while time.monotonic() < deadline:
                tempfile.mkdtemp(dir=folder)

    writer = threading.Thread(target=write)
    writer.start()
    while not os.listdir(folder):
        time.sleep(0.001)
    ray_folder.remove()
    writer.join()
    assert not folder.exists()


def test_removed_after_the_end_of_its_process(place: Path) -> None:
    code = """
from zpd_ray import ray_folder
folder = ray_folder.make()
(folder / "file").touch()
print(folder, flush=True)
ray_folder.remove_after_the_end()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    folder, deadline = Path(done.stdout.strip()), time.monotonic() + 10
    assert folder.parent == place
    while folder.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_place_with_too_long_a_name_for_sockets_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = place / ("x" * 100)
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    with pytest.raises(ZpdError, match=r"^RAY_TMPDIR = .* bytes too long: .*shorter name$"):
        ray_folder.make()
    assert not long.exists()
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setattr(tempfile, "tempdir", str(long))  # as on macOS; nobody has asked for it
    folder = ray_folder.make()
    ray_folder.remove()
    assert folder.parent == Path("/tmp")


def test_a_place_that_cannot_be_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(place / "file"))
    with pytest.raises(ZpdError, match=r"cannot make a folder for Ray in .*; set RAY_TMPDIR"):
        ray_folder.make()
    assert os.listdir(place) == ["file"]
