"""The run directory: files whole or absent, on a local disk and on any filesystem of pyarrow."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from zpd_ray.errors import ZpdError
from zpd_ray.rundir.records import add_event, load_events
from zpd_ray.rundir.store import Store

TABLE = pa.table({"item_id": ["a", "b"], "nll": pa.array([0.5, None], pa.float32())})


class _Remote(Store):
    """A store that has no plain file paths: a subtree filesystem stands for a bucket."""

    def _open(self) -> None:
        os.makedirs(self.root, exist_ok=True)
        self.fs, self.base = pafs.SubTreeFileSystem(self.root, pafs.LocalFileSystem()), "run"


@pytest.fixture(params=["path", "uri", "remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    make: dict[str, Callable[[], Store]] = {
        "path": lambda: Store(str(tmp_path / "run")),
        "uri": lambda: Store((tmp_path / "run").as_uri()),
        "remote": lambda: _Remote(str(tmp_path / "bucket")),
    }
    return make[request.param]()


def test_a_directory_of_another_store_replaces_what_is_here(store: Store, tmp_path: Path) -> None:
    """Linked or copied; replacing a file here leaves the other's as it is."""
    other = Store(str(tmp_path / "other"))
    for name, content in (("pool/a/x", b"1"), ("pool/y", b"2")):
        other.write_bytes(name, content)
    store.write_bytes("pool/old", b"0")
    store.take_from(other, "pool")
    store.take_from(other, "nothing")
    assert store.names("pool") == ["y"]
    assert (store.read_bytes("pool/a/x"), store.read_bytes("pool/y")) == (b"1", b"2")
    store.write_bytes("pool/y", b"3")
    assert other.read_bytes("pool/y") == b"2"
    assert not store.exists("nothing")


def test_nothing_is_made_before_something_is_written(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "run"))
    assert not store.exists("config.toml")
    assert store.names("pool") == []
    assert store.read_lines("events.jsonl") == []
    store.remove("pool")
    assert list(tmp_path.iterdir()) == []


def test_json_bytes_and_tables_come_back_as_they_went(store: Store) -> None:
    value = {"theta": 0.1 + 0.2, "flags": ["all_wrong"], "none": None, "数": "学"}
    store.write_json("stages/00/fit.json", value)
    store.write_bytes("a.bin", b"\x00\xff")
    store.write_table("pool/part-000000.parquet", TABLE)
    assert store.read_json("stages/00/fit.json") == value
    assert store.read_bytes("a.bin") == b"\x00\xff"
    assert store.read_table("pool/part-000000.parquet").equals(TABLE)
    backwards = TABLE.column_names[::-1]
    assert store.read_table("pool/part-000000.parquet", backwards).equals(TABLE.select(backwards))


def test_nan_is_refused_in_json(store: Store) -> None:
    with pytest.raises(ValueError, match="JSON"):
        store.write_json("fit.json", {"theta": float("nan")})
    assert not store.exists("fit.json")


def test_names_are_sorted_and_hold_finished_files_alone(store: Store) -> None:
    for name in ("pool/part-000001.parquet", "pool/part-000000.parquet", "pool/deeper/x"):
        store.write_bytes(name, b"")
    store.write_bytes("pool/.part-000002.parquet.abc", b"half")
    assert store.names("pool") == ["part-000000.parquet", "part-000001.parquet"]


def test_writing_again_replaces(store: Store) -> None:
    store.write_bytes("x", b"a long first content")
    store.write_bytes("x", b"short")
    assert store.read_bytes("x") == b"short"


def test_equal_tables_are_equal_bytes(store: Store) -> None:
    store.write_table("one", TABLE)
    store.write_table("two", pa.table(TABLE.to_pydict(), schema=TABLE.schema))
    assert store.read_bytes("one") == store.read_bytes("two")


def test_a_table_that_fails_midway_leaves_the_old_file_and_nothing_else(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_table("x", TABLE)
    before = store.read_bytes("x")

    def break_off(table: pa.Table, sink: pa.NativeFile, **options: object) -> None:
        sink.write(b"half")
        raise RuntimeError

    monkeypatch.setattr("pyarrow.parquet.write_table", break_off)
    with pytest.raises(RuntimeError):
        store.write_table("x", TABLE)
    assert store.read_bytes("x") == before
    assert store.entries("") == ["x"]


def test_events_keep_their_order(store: Store) -> None:
    for number in range(3):
        add_event(store, "measure", number, 1.23456, tokens=7)
    events = load_events(store)
    assert [event.stage for event in events] == [0, 1, 2]
    assert [(event.seconds, event.details) for event in events] == [(1.235, {"tokens": 7})] * 3


def test_remove_takes_a_directory_with_its_content(store: Store) -> None:
    store.write_bytes("stages/00/a/b", b"")
    store.remove("stages/00")
    store.remove("stages/00")
    assert not store.exists("stages/00")


def test_upload_replaces_and_local_copy_brings_back(store: Store, tmp_path: Path) -> None:
    local = tmp_path / "adapter"
    (local / "deep").mkdir(parents=True)
    (local / "deep/weights.safetensors").write_bytes(b"w")
    store.write_bytes("stages/00/adapter/stale", b"")
    store.upload(str(local), "stages/00/adapter")
    copy = Path(store.local_copy("stages/00/adapter", str(tmp_path / "copies")))
    assert [p.relative_to(copy).as_posix() for p in sorted(copy.rglob("*"))] == [
        "deep",
        "deep/weights.safetensors",
    ]


def test_upload_takes_the_files_that_are_named(store: Store, tmp_path: Path) -> None:
    for name in ("a", "b", "deep/c"):
        (tmp_path / "local" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / name).write_bytes(name.encode())
    store.write_bytes("stages/00/adapter/stale", b"")
    store.upload(str(tmp_path / "local"), "stages/00/adapter", only=["b"])
    assert store.entries("stages/00/adapter") == ["b"]
    assert store.read_bytes("stages/00/adapter/b") == b"b"


def test_another_process_opens_the_same_run(store: Store) -> None:
    store.write_bytes("x", b"1")
    again = pickle.loads(pickle.dumps(store)) if type(store) is Store else store
    assert again.read_bytes("x") == b"1"


def test_a_relative_path_stays_where_it_was_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("run")
    store.write_bytes("x", b"1")
    monkeypatch.chdir("/")
    assert store.exists("x")


@pytest.mark.parametrize("write", [lambda s: s.write_bytes("x", b"1"), lambda s: s.write_table("p/x", TABLE)])
def test_a_place_that_cannot_be_written_says_so_and_what_to_do(
    write: Callable[[Store], Any], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        ZpdError, match=r"cannot write .*/file/run/.*expected a run directory with free space"
    ):
        write(Store(str(tmp_path / "file/run")))


def test_a_disk_that_is_full_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the write fails midway."""
    code = f"""
import resource, signal
from zpd_ray.errors import ZpdError
from zpd_ray.rundir.records import add_event, load_events
from zpd_ray.rundir.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
store = Store({str(tmp_path)!r})
store.write_bytes("small", b"fits")
try:
    store.write_bytes("large", b"x" * 1_000_000)
except ZpdError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert f"cannot write {tmp_path}/large" in done.stdout
    assert "free some space" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["small"]


def test_a_uri_that_no_filesystem_opens_is_one_clear_sentence() -> None:
    with pytest.raises(ZpdError, match="nosuch://"):
        Store("nosuch://bucket/run")
