"""Datasets of the hub become files at one commit: a server answers as the hub does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.readers.hub_server import COMMIT, serving
from zpd_ray.errors import ZpdError
from zpd_ray.readers import hub

ROWS = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(50)]
README = """---
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*
  - split: test
    path: main/test-*
- config_name: extra
  data_files:
  - split: train
    path: main/test-*
---
A dataset.
"""
ASK = """
import sys
from zpd_ray.errors import ZpdError
from zpd_ray.readers.formats import read
from zpd_ray.readers.sources import expand
try:
    for file in expand(sys.argv[1]):
        print(file.path, file.format, file.size, sum(len(batch) for batch in read(file)))
except ZpdError as error:
    print("refused:", error)
assert "ray" not in sys.modules
"""

Asker = Callable[..., list[str]]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    directory = tmp_path / "dataset"
    (directory / "main").mkdir(parents=True)
    for part in range(2):
        pq.write_table(pa.Table.from_pylist(ROWS[part::2]), directory / f"main/train-{part}.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS), directory / "main/test-0.parquet")
    (directory / "main/more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (directory / "README.md").write_text(README)
    return directory


def asker(endpoint: str, home: Path) -> Asker:
    """Asks in a process of its own: the hub's address is read when its library is imported."""

    def ask(path: str, **environment: str) -> list[str]:
        own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PYTHONPATH": os.getcwd()}
        done = subprocess.run(
            [sys.executable, "-c", ASK, path],
            capture_output=True,
            text=True,
            env=os.environ | own | environment,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return ask


@pytest.fixture
def ask(dataset: Path, tmp_path: Path) -> Iterator[Asker]:
    with serving(dataset, "org/name") as (endpoint, _):
        yield asker(endpoint, tmp_path / "home")


def test_a_split_is_its_files_at_the_commit(dataset: Path, ask: Asker) -> None:
    there = f"hf://datasets/org/name@{COMMIT}/main"
    sizes = {path.name: path.stat().st_size for path in (dataset / "main").iterdir()}
    train = [f"{there}/{name} parquet {sizes[name]} 25" for name in ("train-0.parquet", "train-1.parquet")]
    test = [f"{there}/test-0.parquet parquet {sizes['test-0.parquet']} 50"]
    assert ask("hf://datasets/org/name?config=main&split=train") == train
    assert ask("hf://datasets/org/name@v1?config=main&split=test") == test
    assert ask(f"hf://datasets/org/name@{COMMIT}?config=extra") == test  # its one split


def test_what_is_inside_a_dataset_is_a_path_like_any_other(ask: Asker) -> None:
    for path in ("hf://datasets/org/name/main/more.jsonl", "hf://datasets/org/name/main/*.jsonl"):
        (told,) = ask(path)
        assert told.startswith("hf://datasets/org/name/main/more.jsonl jsonl")
        assert told.endswith(" 50")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("hf://datasets/org/name", "pick one among the available configs: ['main', 'extra']; "),
        ("hf://datasets/org/name?config=mian", "'mian' not found. Available: ['main', 'extra']; "),
        ("hf://datasets/org/name?config=main", "has several splits; expected one of train, test: name it"),
        ("hf://datasets/org/name?config=main&split=tset", "has no split 'tset'; expected one of train, test"),
        ("hf://datasets/org/name?subset=main", "got the options 'subset=main'"),
        ("hf://datasets/org/name@v7?config=main", "cannot open the dataset org/name at v7: 404"),
        ("hf://datasets/org/nmae", "cannot open the dataset org/nmae: 401 Client Error"),
        ("hf://datasets/org/nmae/x.jsonl", "no such file or directory: 'hf://datasets/org/nmae/x.jsonl'"),
        (
            "hf://datasets/org/name/main/mroe.jsonl",
            "the nearest names in datasets/org/name/main are 'more.jsonl'",
        ),
        ("hf://nonsense", "cannot read hf://nonsense: the hub: "),
    ],
)
def test_what_is_not_there_gets_a_sentence(ask: Asker, path: str, told: str) -> None:
    (line,) = ask(path)
    assert line.startswith("refused: ")
    assert told in line


@pytest.mark.parametrize("path", ["hf://datasets/org/name", "hf://datasets/org/name/main/more.jsonl"])
def test_a_hub_that_cannot_be_reached_is_told_at_once(tmp_path: Path, path: str) -> None:
    ask = asker("http://127.0.0.1:9", tmp_path / "home")
    (refused,) = ask(path)
    assert "Connection refused" in refused
    (offline,) = ask(path, HF_HUB_OFFLINE="1")
    assert "offline mode is enabled" in offline


def test_the_same_call_tells_the_splits_of_a_directory(dataset: Path) -> None:
    main = hub.splits(str(dataset), "main")
    assert list(main) == ["train", "test"]
    assert [Path(path).name for path in main["train"]] == ["train-0.parquet", "train-1.parquet"]
    assert hub.splits(str(dataset), "extra") == {"train": main["test"]}
    (dataset / "README.md").unlink()  # then the names of the files say it
    assert hub.splits(str(dataset)) == main


def test_without_a_readme_the_names_of_files_say_the_splits(tmp_path: Path) -> None:
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text(json.dumps(ROWS[0]) + "\n")
    assert hub.splits(str(tmp_path)) == {
        name: [str(tmp_path / f"{name}.jsonl")] for name in ("train", "test")
    }
    assert next(iter(hub.splits(str(tmp_path)))) == "train"


def test_rows_inside_a_field_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"data": ROWS}))
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files: x.json\n  field: data\n---\n"
    )
    with pytest.raises(ZpdError, match="inside the field 'data'"):
        hub.splits(str(tmp_path))


@pytest.mark.parametrize(
    ("path", "whole"),
    [
        ("hf://datasets/org/name", True),
        ("hf://datasets/org/name/", True),
        ("hf://datasets/org/name@refs%2Fconvert%2Fparquet?config=a b", True),
        ("hf://datasets/org/name/x.jsonl", False),
        ("hf://datasets/org/*", False),
        ("hf://datasets/org", False),
        ("hf://models/org", False),
        ("org/name", False),
    ],
)
def test_a_dataset_is_told_from_what_is_inside_one(path: str, whole: bool) -> None:
    assert hub.is_dataset(path) is whole
