"""Datasets and files of the Hugging Face hub.

``hf://datasets/ORG/NAME`` is a dataset: its README, or the names of its files, say which of them make which
split, as for ``datasets.load_dataset``. Nothing is downloaded here but the README: the files are read where
other files are, each from the commit that the dataset was at. A file or directory inside a dataset
(``hf://datasets/ORG/NAME/data/x.jsonl``) is a path like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

import pyarrow as pa
from pyarrow import fs

from zpd_ray.errors import ZpdError

SCHEME = "hf://"
_DATASET = re.compile(r"hf://datasets/([^/@?*]+/[^/@?*]+)(?:@([^/?*]+))?/?(?:\?(.*))?")
_HOW = "hf://datasets/ORG/NAME@REVISION?config=CONFIG&split=SPLIT, all but ORG/NAME optional"


def is_dataset(path: str) -> bool:
    """Whether a path is a whole dataset of the hub, not something inside one."""
    return _DATASET.fullmatch(path) is not None


def dataset_files(path: str) -> list[str]:
    """URIs of the files of one split, at one commit: ``hf://datasets/ORG/NAME@COMMIT/...``.

    ``path``: ``hf://datasets/ORG/NAME@REVISION?config=CONFIG&split=SPLIT``. The revision is a branch, tag or
    commit, by default what the hub has now; configuration and split may be left out where there is only one.

    Raises ZpdError for a dataset, revision, configuration or split that is not there or is not named, for a
    hub that cannot be reached, and where the rows lie inside a field of a JSON file.
    """
    match = _DATASET.fullmatch(path)
    assert match
    dataset, revision = match[1], match[2] and unquote(match[2])
    options = _options(dataset, match[3] or "")
    commit = _commit(dataset, revision)
    found = splits(f"{SCHEME}datasets/{dataset}", options.get("config"), commit)
    if not found:
        raise ZpdError(f"the dataset {dataset} has no files that make splits; name a file or directory in it")
    split = options.get("split") or (next(iter(found)) if len(found) == 1 else "")
    if split not in found:
        said = f"has no split {split!r}" if split else "has several splits"
        raise ZpdError(
            f"the dataset {dataset} {said}; expected one of {', '.join(found)}: name it, e.g. "
            f"{path.partition('?')[0]}?{urlencode(options | {'split': next(iter(found))})}"
        )
    return found[split]


def splits(dataset: str, config: str | None = None, revision: str | None = None) -> dict[str, list[str]]:
    """Split -> its files. ``dataset``: a local directory, or ``hf://datasets/ORG/NAME``."""
    import datasets  # half a second: only for who has a dataset of the hub

    with _told(f"cannot tell the files of the dataset {dataset}", ZpdError, "; correct the path: " + _HOW):
        builder = datasets.load_dataset_builder(dataset, config, revision=revision)
    settings: Any = builder.config
    if getattr(settings, "field", None):
        raise ZpdError(
            f"the rows of {dataset} lie inside the field {settings.field!r} of a JSON object, which is not "
            "read here; write them as JSON lines"
        )
    return {str(split): list(map(str, files)) for split, files in (settings.data_files or {}).items()}


def filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    """The hub as a file system of pyarrow, and the path in it. Whatever goes wrong in it is an OSError."""
    from huggingface_hub import HfFileSystem

    return fs.PyFileSystem(_Handler(HfFileSystem())), uri.removeprefix(SCHEME).rstrip("/")


def _options(dataset: str, query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = options.keys() - {"config", "split"}
    if unknown or "" in options.values():
        raise ZpdError(f"got the options {query!r} for the dataset {dataset}; expected {_HOW}")
    return options


def _commit(dataset: str, revision: str | None) -> str:
    """The commit that a revision names. Asked once: ``datasets`` would try for half a minute."""
    from huggingface_hub import HfApi

    where = f"the dataset {dataset}" + (f" at {revision}" if revision else "")
    todo = (
        "; expected a dataset of the hub that can be reached from here: check its name, the network, and "
        "for one that needs it the token (HF_TOKEN); or give the path of a local copy"
    )
    with _told(f"cannot open {where}", ZpdError, todo):
        return str(HfApi().dataset_info(dataset, revision=revision, timeout=30).sha)


@contextmanager
def _told(what: str, kind: type[Exception], todo: str = "") -> Iterator[None]:
    """Turns errors into one kind: those of the hub's libraries, and of HTTP, have no base in common."""
    try:
        yield
    except Exception as error:
        if kind is OSError and isinstance(error, FileNotFoundError):
            raise  # which callers tell from other errors
        raise kind(_sentence(what, error, todo)) from error


def _sentence(what: str, error: Exception, todo: str) -> str:
    """The first two lines of an error say what it is, the further ones what to do in Python."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{what}: {' '.join(lines[:2]).rstrip('.') or type(error).__name__}{todo}"


class _Handler(fs.FSSpecHandler):
    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        with _told("the hub", OSError):
            return list(super().get_file_info(paths))

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        with _told("the hub", OSError):
            return list(super().get_file_info_selector(selector))

    def open_input_file(self, path: str) -> pa.PythonFile:
        with _told("the hub", OSError):
            return pa.PythonFile(_File(self.fs.open(path, mode="rb")), mode="r")

    open_input_stream = open_input_file


class _File:
    """A file of the hub for pyarrow."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        with _told("the hub", OSError):
            return bytes(self._file.read(size))

    def __getattr__(self, name: str) -> Any:  # seek, tell, close and what else pyarrow asks for
        return getattr(self._file, name)
