"""Weights & Biases without its servers: what its library writes in offline mode, read back.

That ``wandb sync`` then brings it to a server is not tested here.
"""

from __future__ import annotations

import json
import pickle
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tracking.conftest import MakeRun, expected, reopen
from zpd_ray.rundir.layout import TRACKING
from zpd_ray.tracking.figures import closed
from zpd_ray.tracking.telling import Telling, tracked

pytest.importorskip("wandb", reason="the extra 'wandb' is not installed")
BLOCK = 32768  # bytes of a log of LevelDB, whose records do not cross blocks in one piece
HEAD = 7  # bytes before each piece, and at the start of the file


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is sent, no key of who runs the tests is seen, and the environment is read anew."""
    import wandb

    wandb.teardown()
    for name in ("WANDB_DIR", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    yield
    wandb.teardown()


def pieces(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind (1 whole, 2 first, 3 middle, 4 last) and content of each piece of the log."""
    at = HEAD
    while at < len(content):
        if BLOCK - at % BLOCK < HEAD:  # no room for a piece
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        yield kind, content[at + HEAD : at + HEAD + length]
        at += HEAD + length


def records(file: Path) -> Iterator[Any]:
    from wandb.proto.wandb_internal_pb2 import Record

    whole = b""
    for kind, piece in pieces(file.read_bytes()):
        whole += piece
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def files(directory: Path) -> list[Path]:
    """Of all runs, once its own process has written all: ``finish`` may come back before."""
    import wandb

    wandb.teardown()
    return sorted(directory.glob("wandb/offline-run-*/run-*.wandb"))


def rows(file: Path) -> list[dict[str, Any]]:
    """What was logged, row by row."""
    return [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records(file)
        if record.HasField("history")
    ]


def logged(file: Path) -> list[tuple[tuple[str, int], float]]:
    return [
        ((key, row["optimizer_step" if key.startswith("train/") else "stage"]), value)
        for row in rows(file)
        for key, value in row.items()
        if "/" in key
    ]


def test_everything_is_in_the_file_of_the_run(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(wandb="me/project")
    with tracked(run):
        pass
    [file] = files(tmp_path)
    found = logged(file)
    assert len(found) == len(dict(found))
    assert dict(found) == pytest.approx(expected(run))
    [begun] = [record.run for record in records(file) if record.HasField("run")][:1]
    name = run.store.read_json(TRACKING)["run"]
    assert (begun.run_id, begun.display_name, begun.entity, begun.project) == (name, name, "me", "project")
    told = {item.key or item.nested_key[0]: item.value_json for item in begun.config.update}
    assert told["train.method"] == '"lora"'


def test_a_resumed_run_goes_on_under_its_id_with_what_is_missing(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(wandb="project")
    back = reopen(run, 1, "metrics.json")
    with tracked(run):
        pass
    back()
    with tracked(run):
        pass
    both = files(tmp_path)
    assert [file.name for file in both] == [f"run-{run.store.read_json(TRACKING)['run']}.wandb"] * 2
    found = [entry for file in both for entry in logged(file)]
    assert len(found) == len(dict(found))
    assert dict(found) == pytest.approx(expected(run))


KILLED = """
import os, pickle, sys
from zpd_ray.tracking.telling import Telling

Telling(pickle.load(sys.stdin.buffer)).tell()
os.kill(os.getpid(), 9)
"""


def test_what_is_told_by_a_process_that_is_killed_comes_again(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(wandb="project")
    killed = subprocess.run([sys.executable, "-c", KILLED], input=pickle.dumps(run), timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert run.store.read_json(TRACKING)["told"] == {}
    with tracked(run):
        pass
    one, other = files(tmp_path)
    whole = max(logged(one), logged(other), key=len)  # of the killed one its library may have kept all back
    assert dict(whole) == pytest.approx(expected(run))
    [told] = run.store.read_json(TRACKING)["told"].values()
    assert told == closed(run)


def test_without_a_key_it_asks_nobody_and_the_run_goes_on(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    run = make_run(wandb="project")
    Telling(run).tell()
    assert "there is no API key; set WANDB_API_KEY, or WANDB_MODE=offline" in capsys.readouterr().err
    assert run.store.read_json(TRACKING)["told"] == {}
