"""progress.json and the lock: what one process tells of a run, and others see."""

from __future__ import annotations

import fcntl
import json
import time
from pathlib import Path
from threading import Thread

import pytest

from zpd_ray.at_work import at_work
from zpd_ray.errors import ZpdError
from zpd_ray.rundir import Store
from zpd_ray.rundir import progress as module
from zpd_ray.rundir.layout import LOCK, PROGRESS
from zpd_ray.rundir.lock import is_held, locked
from zpd_ray.rundir.progress import Recorder, ending, load_progress


def test_the_record_follows_the_work_and_tells_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCAL_SECONDS", 0.05)
    store, heard = Store(str(tmp_path)), []
    assert load_progress(store) is None
    with (
        Recorder(store, "run") as recorder,
        at_work.step("measure", 1),
        at_work.work("measuring", 10) as advance,
    ):
        first = load_progress(store)
        advance(4)
        with recorder.heard_by(lambda: heard.append(1)):
            time.sleep(0.5)
        later, told = load_progress(store), len(heard)
        time.sleep(0.2)
        assert len(heard) == told > 1
    last = load_progress(store)
    assert first is not None
    assert later is not None
    assert last is not None
    assert first.at < later.at < last.at
    assert [(d.step, d.stage, d.done, d.total) for d in later.doing] == [("measure", 1, 4, 10)]
    assert (first.exit_code, later.exit_code, last.exit_code) == (None, None, 0)
    assert (last.command, last.doing) == ("run", [])


@pytest.mark.parametrize(
    ("failure", "code", "told"),
    [
        (ZpdError("mend it"), 2, "mend it"),
        (RuntimeError("a fault"), 1, "RuntimeError: a fault"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_failure_passes_and_is_told(tmp_path: Path, failure: BaseException, code: int, told: str) -> None:
    with pytest.raises(type(failure)), Recorder(Store(str(tmp_path)), "fit"):
        raise failure
    last = load_progress(Store(str(tmp_path)))
    assert last is not None
    assert (last.exit_code, last.error) == (code, told) == ending(failure)


def test_whatever_is_wrong_with_watching_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LOCAL_SECONDS", 0.05)
    (tmp_path / PROGRESS).mkdir()  # nothing can be written there

    def hear() -> None:
        raise OSError("the bucket is away")

    with Recorder(Store(str(tmp_path)), "run") as recorder, recorder.heard_by(hear):
        time.sleep(0.5)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2  # each once
    assert "`zpd-ray watch` does not show how far this run is: cannot write" in told[0]
    assert "the bucket is away" in told[1]


def test_what_a_later_version_says_besides_is_passed_over(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with Recorder(store, "run"):
        pass
    told = store.read_json(PROGRESS) | {"weather": "fine"}
    told["doing"] = [{"step": "fit", "stage": 0, "began": 1.0, "mood": "good"}]
    store.write_json(PROGRESS, told)
    seen = load_progress(store)
    assert seen is not None
    assert seen.doing[0].step == "fit"


def test_a_lock_is_seen_and_not_taken_away(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    assert is_held(store) is False
    with locked(store):
        assert is_held(store) is True
        assert is_held(store) is True
        with pytest.raises(ZpdError, match="another process is working"), locked(store):
            pass
    assert is_held(store) is False


def test_who_only_looks_keeps_no_run_from_beginning(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    (tmp_path / LOCK).touch()
    with (tmp_path / LOCK).open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        end = Thread(target=lambda: (time.sleep(0.3), fcntl.flock(looking, fcntl.LOCK_UN)))
        end.start()
        began = time.monotonic()
        with locked(store):
            assert time.monotonic() - began > 0.2  # it waited for who looked
            assert is_held(store) is True
        end.join()
    assert is_held(store) is False


def test_the_record_is_one_json_object(tmp_path: Path) -> None:
    with Recorder(Store(str(tmp_path)), "run"):
        told = json.loads((tmp_path / PROGRESS).read_text())
    assert {"command", "host", "pid", "began", "at", "doing", "exit_code"} <= told.keys()
