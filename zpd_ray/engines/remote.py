"""Models by URI: each machine keeps copies of what it needs, of the files that hold no code.

Two kinds: one with the weights, for processes that load them, and one without, for all that only reads the
model's config and tokenizer. A copy appears whole or not at all, and is never changed: where the model at the
URI is, by the sizes and times of its files, another one is made.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import uuid
from functools import cache
from pathlib import Path

import pyarrow.fs as pafs

from zpd_ray.engines.weights import check_weights, listed
from zpd_ray.errors import ZpdError
from zpd_ray.uris import patiently, without_options

WEIGHTS = ".safetensors"
PLAIN = (".json", ".txt", ".model", ".jinja", ".tiktoken")  # beside the weights; none is ever run
CHUNK_BYTES = 16 * 2**20


def is_remote(path: str) -> bool:
    """Whether a model's path is a URI, rather than a directory or a hub id."""
    return "://" in path


def at_hand(path: str) -> str:
    """The path of a model without its weights: of a URI a local copy, anything else as it is.

    Raises ZpdError when there is nothing at the URI, or it cannot be read.
    """
    return _copy(path, False) if is_remote(path) else path


def with_weights(path: str) -> str:
    """The same with the weights, which are checked (``check_weights``)."""
    return _copy(path, True) if is_remote(path) else path


def copies() -> Path:
    """Where this machine keeps models: $ZPD_RAY_MODELS, else zpd-ray/models of the user's cache directory."""
    cache_home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("ZPD_RAY_MODELS") or f"{cache_home}/zpd-ray/models").expanduser()


@cache
def _copy(uri: str, weights: bool) -> str:
    """One process of the machine makes it, others wait for that. Looked for once in each process."""
    shown = without_options(uri)
    fs, found = listed(uri)
    files = [info for info in found if info.is_file and info.base_name.endswith((*PLAIN, WEIGHTS))]
    if not any(info.base_name == "config.json" for info in files):
        names = ", ".join(sorted(info.base_name for info in found)[:5]) or "nothing"
        raise ZpdError(f"no model at {shown}, which holds {names}; expected config.json beside *.safetensors")
    if not weights:
        files = [info for info in files if not info.base_name.endswith(WEIGHTS)]
    target = copies() / _name(uri, files)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_name(f"{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_dir():
                _make(fs, files, target, weights)
    except OSError as problem:
        raise ZpdError(
            f"cannot copy the model at {shown} to {target}: {problem}; free some space there, or set "
            "ZPD_RAY_MODELS to another directory, on every node"
        ) from problem
    return str(target)


def _name(uri: str, files: list[pafs.FileInfo]) -> str:
    told = [f"{info.base_name} {info.size} {info.mtime_ns}" for info in files]
    digest = hashlib.sha256("\n".join([uri, *sorted(told)]).encode()).hexdigest()[:16]
    return f"{Path(without_options(uri)).name}-{digest}"


def _make(fs: pafs.FileSystem, files: list[pafs.FileInfo], target: Path, weights: bool) -> None:
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    unfinished.mkdir()
    try:
        fetch = patiently(pafs.copy_files)
        for info in files:
            copy = unfinished / info.base_name
            fetch(info.path, str(copy), fs, pafs.LocalFileSystem(), chunk_size=CHUNK_BYTES)
            if copy.stat().st_size != info.size:
                raise OSError(f"{info.base_name} has {copy.stat().st_size:,} bytes, expected {info.size:,}")
        if weights:
            check_weights(str(unfinished))
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
