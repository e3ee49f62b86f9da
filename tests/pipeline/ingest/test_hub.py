"""A pool that is a dataset of the hub: read from one commit, and not asked for again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomli_w

from tests.pipeline.conftest import questions, simulated_values
from tests.pipeline.processes import call, command, run_here
from tests.readers.hub_server import COMMIT, serving
from zpd_ray.rundir.store import Store


def test_a_dataset_of_the_hub_is_read_once_from_one_commit(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By tasks of a Ray of its own, of which nothing is left; resuming the run asks the hub for nothing."""
    data = tmp_path / "dataset"
    data.mkdir()
    for name, rows in (
        ("train-0", questions(40)),
        ("train-1", questions(30, 40)),
        ("test", questions(9, 90)),
    ):
        pq.write_table(pa.Table.from_pylist(rows), data / f"{name}.parquet")  # type: ignore[arg-type]
    config = tmp_path / "run.toml"
    pool = {"path": "hf://datasets/org/name?split=train"}
    config.write_text(tomli_w.dumps(simulated_values(tmp_path, pool=pool)))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with serving(data, "org/name") as (endpoint, asked):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with tempfile.TemporaryDirectory(
            prefix="zr-", dir="/tmp"
        ) as of_ray:  # paths of sockets must be short
            done = call(command("ingest", config), env={**os.environ, "RAY_TMPDIR": of_ray})
            assert os.listdir(of_ray) == []
        assert done.returncode == 0, done.stdout + done.stderr
    store = Store(str(tmp_path / "out"))
    summary = store.read_json("pool.json")
    there = f"hf://datasets/org/name@{COMMIT}"
    assert [one["path"] for one in summary["sources"]] == [f"{there}/train-{i}.parquet" for i in range(2)]
    assert summary["items"] == 70
    assert f"GET datasets/org/name/resolve/{COMMIT}/train-1.parquet" in asked
    assert not any("test.parquet" in one for one in asked)
    with serving(data, "org/name", commit="0" * 40) as (endpoint, asked):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        run_here("ingest", config)  # the dataset has moved on, the run has not
    assert asked == []
    assert store.read_json("pool.json") == summary
