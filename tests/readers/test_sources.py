"""Paths, globs, directories, URIs and datasets on disk become a list of files, or a sentence."""

import hashlib
import os
import pickle
from pathlib import Path

import datasets
import pytest

from zpd_ray.errors import ZpdError
from zpd_ray.readers.fingerprints import fingerprint
from zpd_ray.readers.sources import SourceFile, expand


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "a.jsonl",
        "b.csv",
        "c.jsonl.gz",
        "sub/d.parquet",
        "sub/deep/e.arrow",
        "sub/deep/a [1].json",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content of " + name.encode())
    for name in (
        "README.md",
        ".hidden.jsonl",
        "_SUCCESS.csv",
        "sub/.cache/f.jsonl",
        "empty.jsonl",
        "x.parquet.gz",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if "empty" in name else b"not data")
    return tmp_path


def names(files: list[SourceFile], tree: Path) -> list[str]:
    return [os.path.relpath(file.path, tree) for file in files]


EVERYTHING = ["a.jsonl", "b.csv", "c.jsonl.gz", "sub/d.parquet", "sub/deep/a [1].json", "sub/deep/e.arrow"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.jsonl", ["a.jsonl"]),
        ("", EVERYTHING),
        ("*.jsonl*", ["a.jsonl", "c.jsonl.gz"]),
        ("?.csv", ["b.csv"]),
        ("[!b].*", ["a.jsonl", "c.jsonl.gz"]),
        ("[a-b].*", ["a.jsonl", "b.csv"]),
        ("*", ["a.jsonl", "b.csv", "c.jsonl.gz"]),
        ("**", EVERYTHING),
        ("**/*", EVERYTHING),
        ("**/*.json*", ["a.jsonl", "c.jsonl.gz", "sub/deep/a [1].json"]),
        ("*/*.parquet", ["sub/d.parquet"]),
        ("sub/**/e.arrow", ["sub/deep/e.arrow"]),
        ("sub/deep/a [1].json", ["sub/deep/a [1].json"]),
    ],
)
def test_paths_directories_and_globs(tree: Path, pattern: str, expected: list[str]) -> None:
    files = expand(str(tree / pattern))
    assert names(files, tree) == sorted(expected)
    assert all(
        file.size == (tree / name).stat().st_size for file, name in zip(files, sorted(expected), strict=True)
    )


def test_formats_by_extension_or_as_named(tree: Path) -> None:
    formats = {name: file.format for name, file in zip(EVERYTHING, expand(str(tree)), strict=True)}
    assert list(formats.values()) == ["jsonl", "csv", "jsonl", "parquet", "jsonl", "arrow"]
    assert names(expand(str(tree), "csv"), tree) == ["b.csv"]
    assert [file.format for file in expand(str(tree / "README.md"), "jsonl")] == ["jsonl"]
    assert [file.format for file in expand(str(tree / "*.md"), "csv")] == ["csv"]


def test_lists_links_relative_paths_and_uris_name_a_file_once(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "z.jsonl").symlink_to(tree / "a.jsonl")
    monkeypatch.chdir(tree)
    monkeypatch.setenv("HOME", str(tree))
    given = [
        (tree / "sub/deep/a [1].json").as_uri(),
        "z.jsonl",
        "a.jsonl",
        "~/a.jsonl",
        f"file://{tree}/a.json*",
    ]
    assert names(expand(given), tree) == ["a.jsonl", "sub/deep/a [1].json"]
    assert expand(given) == expand(given[::-1])


def test_a_file_travels_to_a_task_and_opens_there(tree: Path) -> None:
    file = pickle.loads(pickle.dumps(expand(str(tree / "a.jsonl"))[0]))
    with file.filesystem().open_input_stream(file.inner) as stream:
        assert stream.read() == b"content of a.jsonl"


def test_the_fingerprint_is_of_the_stored_bytes(tree: Path) -> None:
    content = (tree / "c.jsonl.gz").read_bytes()
    assert fingerprint(expand(str(tree / "c.jsonl.gz"))[0]) == {
        "path": str(tree / "c.jsonl.gz"),
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "changed_ns": (tree / "c.jsonl.gz").stat().st_mtime_ns,
    }


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("a.jsnl", r"no such file.*nearest names.*'a.jsonl'"),
        ("nowhere/x/a.jsonl", r"no such file.*nearest names in .* are "),
        ("empty.jsonl", "is empty"),
        ("README.md", r"extension that no reader knows; known are \.jsonl"),
        ("x.parquet.gz", "extension that no reader knows"),
        ("*.md", "no data matches.*got 'README.md'"),
        ("*.txt", "no data matches.*got nothing"),
        ("", "a source path is empty"),
        ("s3://key:secret@bucket/[x", r"cannot open s3://bucket/\[x"),
        ("nope://x", "cannot open nope://x"),
    ],
)
def test_what_cannot_be_read_gets_a_sentence(tree: Path, path: str, problem: str) -> None:
    given = path if "://" in path or not path else str(tree / path)
    with pytest.raises(ZpdError, match=problem) as caught:
        expand(given)
    assert "secret" not in str(caught.value)


def test_a_directory_without_data_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ZpdError, match=r"holds no data.*got 'notes.txt'"):
        expand(str(tmp_path))
    with pytest.raises(ZpdError, match="names no path"):
        expand([])


@pytest.fixture
def dataset() -> datasets.Dataset:
    return datasets.Dataset.from_dict({"prompt": list("abcde"), "response": list("vwxyz")})


def test_a_dataset_on_disk_is_its_arrow_files(tmp_path: Path, dataset: datasets.Dataset) -> None:
    dataset.save_to_disk(tmp_path / "one", num_shards=2)
    (tmp_path / "one/cache-1.arrow").write_bytes(b"left by a map()")
    expected = ["one/data-00000-of-00002.arrow", "one/data-00001-of-00002.arrow"]
    for given in (tmp_path / "one", tmp_path / "o*"):
        files = expand(str(given))
        assert names(files, tmp_path) == expected
        assert {file.format for file in files} == {"arrow"}
    assert names(expand(str(tmp_path / "one"), "hf"), tmp_path) == expected
    (tmp_path / "one/data-00001-of-00002.arrow").unlink()
    with pytest.raises(ZpdError, match="incomplete dataset"):
        expand(str(tmp_path / "one"))


def test_of_a_dataset_dict_the_split_has_to_be_named(tmp_path: Path, dataset: datasets.Dataset) -> None:
    datasets.DatasetDict({"train": dataset}).save_to_disk(tmp_path / "single")
    datasets.DatasetDict({"train": dataset, "test": dataset}).save_to_disk(tmp_path / "both")
    assert names(expand(str(tmp_path / "single")), tmp_path) == ["single/train/data-00000-of-00001.arrow"]
    assert names(expand(str(tmp_path / "both/test")), tmp_path) == ["both/test/data-00000-of-00001.arrow"]
    with pytest.raises(ZpdError, match=r"splits 'train', 'test'; name the one to read, e.g. .*both/train"):
        expand(str(tmp_path / "both"))


def test_format_hf_wants_a_saved_dataset(tree: Path) -> None:
    with pytest.raises(ZpdError, match="save_to_disk"):
        expand(str(tree), "hf")
    with pytest.raises(ZpdError, match="save_to_disk"):
        expand(str(tree / "a.jsonl"), "hf")
