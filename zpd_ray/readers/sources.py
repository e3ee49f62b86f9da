"""Which files a source consists of: paths, globs, directories, URIs and datasets saved to disk.

Every path, local or not, goes through ``pyarrow.fs``, so a bucket behaves as a directory does.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import pyarrow as pa
from pyarrow import fs

from zpd_ray.errors import ZpdError
from zpd_ray.readers import hub
from zpd_ray.uris import open_filesystem

# Extension (a compression suffix removed) -> format. "json" holds lines or one array.
EXTENSIONS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".arrow": "arrow",
    ".feather": "arrow",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_TEXT_FORMATS = {"jsonl", "csv"}  # the formats that may be compressed as a whole
_HF_FILES = {"dataset_info.json", "state.json", "dataset_dict.json"}
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True)
class SourceFile:
    """One file to read. Small and picklable: a task opens the filesystem itself."""

    path: str  # as shown and stored: an absolute local path, or a URI without credentials and options
    format: str  # jsonl, parquet, csv or arrow
    size: int  # bytes
    inner: str = field(repr=False)  # the path inside the filesystem
    base: str | None = field(
        default=None, repr=False
    )  # URI that opens the filesystem; None is the local disk

    def filesystem(self) -> fs.FileSystem:
        """The filesystem that holds the file. Raises ZpdError when the URI cannot be opened."""
        return fs.LocalFileSystem() if self.base is None else _from_uri(self.base)[0]

    @property
    def extension(self) -> str:
        """In lower case, the one before that of a compression: ".json" of x.json.gz."""
        stem, last = os.path.splitext(self.path.lower())
        return os.path.splitext(stem)[1] if last in COMPRESSIONS else last

    @property
    def compression(self) -> str | None:
        """ "gzip", "zstd" or None, by the extension."""
        return COMPRESSIONS.get(os.path.splitext(self.path)[1].lower())


@dataclass(frozen=True)
class _Place:
    """A path or URI taken apart; ``shown`` is what the user gave, without credentials."""

    shown: str
    filesystem: fs.FileSystem
    inner: str
    base: str | None

    def file(self, inner: str, format: str, size: int) -> SourceFile:
        if self.base is None:
            return SourceFile(inner, format, size, inner)
        scheme = self.base.partition("://")[0]
        return SourceFile(f"{scheme}://{inner}", format, size, inner, self.base)


def expand(paths: str | list[str], format: str = "auto") -> list[SourceFile]:
    """The files of a source, sorted by path, each once.

    ``paths``: files, globs (``*``, ``?``, ``[..]``, ``**``), directories (searched to any depth; names that
    start with ``.`` or ``_`` and files of no known extension are left out), URIs that ``pyarrow.fs`` opens
    (in these, ``?`` starts the options and only ``*`` is a glob), datasets of the Hugging Face hub
    (``hf://datasets/ORG/NAME``, with options: ``hub.dataset_files``), or directories that ``datasets`` wrote
    with ``save_to_disk``. ``format``: "auto" goes by the extension.

    Raises ZpdError for a path that is not there (with the nearest names), is unreadable or empty, has an
    unknown extension, or is a dataset with several splits, one of which has to be named.
    """
    given = [paths] if isinstance(paths, str) else paths
    if not given:
        raise ZpdError("the source names no path; give a file, glob, directory or URI in its 'path'")
    found: dict[str, SourceFile] = {}
    for path in given:
        for file in _expand_one(path, format):
            key = os.path.realpath(file.inner) if file.base is None else file.path
            if key not in found or file.path < found[key].path:
                found[key] = file
    return sorted(found.values(), key=lambda file: file.path)


def unreadable(path: str, error: BaseException) -> str:
    """The sentence for a file that is there and cannot be read."""
    return f"cannot read {path}: {error}; check its permissions, the connection, and that it is complete"


def _expand_one(path: str, format: str) -> list[SourceFile]:
    if format != "hf" and hub.is_dataset(path):
        return [file for uri in hub.dataset_files(path) for file in _expand_one(uri, format)]
    place = _locate(path)
    try:
        info = place.filesystem.get_file_info(place.inner)
        if info.type == fs.FileType.File:
            return [_named_file(place, info, format)]
        if info.type == fs.FileType.Directory:
            return _directory(place, place.inner, format)
        if any(mark in place.inner for mark in "*?["):
            return _glob(place, format)
    except OSError as error:
        raise ZpdError(unreadable(place.shown, error)) from error
    raise ZpdError(f"no such file or directory: {place.shown!r}{_beside(place)}; correct the path")


def _locate(path: str) -> _Place:
    if not path.strip():
        raise ZpdError("a source path is empty; give a file, glob, directory or URI")
    if not _URI.match(path):
        return _Place(path, fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(path)), None)
    address, query, options = path.partition("?")
    plain = address
    if "*" in address:  # from_uri is given the part before the glob
        plain = address[: address.index("*")].rpartition("/")[0]
    uri = plain + query + options
    filesystem, inner = _from_uri(uri)
    local = isinstance(filesystem, fs.LocalFileSystem)
    return _Place(_shown(path), filesystem, inner + address[len(plain) :], None if local else uri)


def _from_uri(uri: str) -> tuple[fs.FileSystem, str]:
    try:
        return hub.filesystem(uri) if uri.startswith(hub.SCHEME) else open_filesystem(uri)
    except (OSError, ValueError, ImportError) as error:
        web = uri.partition("://")[0] in ("http", "https")
        raise ZpdError(
            f"cannot open {_shown(uri)}: {_shown(str(error))}; "
            f"{'download it first: ' if web else ''}expected a URI that pyarrow.fs "
            "opens (file, s3, gs, hdfs, abfs, hf), with credentials in the environment"
        ) from error


def _shown(text: str) -> str:
    """Without the credentials that a URI may carry before its @, or its options after ?."""
    return re.sub(r"\?[^\s']*", "", re.sub(r"//[^/@\s]*@", "//", text)) if "://" in text else text


def _named_file(place: _Place, info: fs.FileInfo, format: str) -> SourceFile:
    """A file that the user named: whatever is wrong with it is an error, where a directory would skip it."""
    if info.size == 0:
        raise ZpdError(f"{place.shown!r} is empty (0 bytes); expected at least one row")
    if place.base is None and not os.access(info.path, os.R_OK):
        raise ZpdError(unreadable(place.shown, PermissionError("permission denied")))
    if format == "hf":
        raise ZpdError(f"{place.shown!r} is a file; format 'hf' expects a directory written by save_to_disk")
    known = _format_of(info.path) if format == "auto" else format
    if known is None:
        raise ZpdError(
            f"{place.shown!r} has an extension that no reader knows; known are {_known()}; rename the file "
            "or set the source's 'format'"
        )
    return place.file(info.path, known, info.size)


def _known() -> str:
    return f"{', '.join(EXTENSIONS)}, the text ones also with {' or '.join(COMPRESSIONS)}"


def _format_of(path: str) -> str | None:
    stem, extension = os.path.splitext(path.lower())
    if extension in COMPRESSIONS:
        inner = EXTENSIONS.get(os.path.splitext(stem)[1])
        return inner if inner in _TEXT_FORMATS else None
    return EXTENSIONS.get(extension)


def _directory(place: _Place, inner: str, format: str) -> list[SourceFile]:
    if _is_file(place.filesystem, f"{inner}/dataset_dict.json"):
        return _dataset_dict(place, inner)
    if _is_file(place.filesystem, f"{inner}/state.json") and format in ("auto", "hf", "arrow"):
        return _dataset(place, inner)
    if format == "hf":
        raise ZpdError(f"{place.shown!r} holds no state.json; format 'hf' expects what save_to_disk wrote")
    infos = place.filesystem.get_file_info(fs.FileSelector(inner, recursive=True))
    visible = [info for info in infos if not _hidden(info.path[len(inner) :])]
    files = _data_files(place, visible, format)
    if not files:
        raise ZpdError(
            f"{place.shown!r} holds no data: expected non-empty files with {_known()}, "
            f"got {_some(info.base_name for info in infos)}"
        )
    return files


def _hidden(relative: str) -> bool:
    parts = relative.strip("/").split("/")
    return any(part.startswith((".", "_")) for part in parts) or parts[-1] in _HF_FILES


def _data_files(place: _Place, infos: Iterable[fs.FileInfo], format: str) -> list[SourceFile]:
    files = []
    for info in infos:
        known = _format_of(info.path)
        if info.type == fs.FileType.File and info.size and known and format in ("auto", known):
            files.append(place.file(info.path, known, info.size))
    return files


def _glob(place: _Place, format: str) -> list[SourceFile]:
    parts = place.inner.split("/")
    fixed = next(index for index, part in enumerate(parts) if any(mark in part for mark in "*?["))
    base, pattern = "/".join(parts[:fixed]), parts[fixed:]
    selector = fs.FileSelector(
        base or "/", recursive=len(pattern) > 1 or pattern[0] == "**", allow_not_found=True
    )
    matched = [
        info
        for info in place.filesystem.get_file_info(selector)
        if info.base_name not in _HF_FILES and _matches(info.path[len(base) :].strip("/").split("/"), pattern)
    ]
    files = [info for info in matched if info.type == fs.FileType.File and info.size]
    found = _data_files(place, files, format)
    if not found and format not in ("auto", "hf"):  # a named format reads any extension
        found = [place.file(info.path, format, info.size) for info in files]
    for info in matched:
        if info.type == fs.FileType.Directory and _is_file(place.filesystem, f"{info.path}/state.json"):
            found += _dataset(place, info.path)
    if not found:
        raise ZpdError(
            f"no data matches {place.shown!r}: expected non-empty files with {_known()}, "
            f"got {_some(info.base_name for info in matched)}{_beside(place)}"
        )
    return found


def _matches(names: list[str], pattern: list[str]) -> bool:
    """``**`` is any number of directories or, at the end, all that is in them. A name that starts with ``.``
    or ``_`` has to be asked for with that character."""
    if not pattern or not names:
        return names == pattern or pattern == ["**"]
    if pattern[0] != "**":
        hidden = names[0][0] in "._" and names[0][0] != pattern[0][0]
        return not hidden and fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])
    return _matches(names, pattern[1:]) or (names[0][0] not in "._" and _matches(names[1:], pattern))


def _is_file(filesystem: fs.FileSystem, path: str) -> bool:
    return filesystem.get_file_info(path).type == fs.FileType.File


def _dataset_dict(place: _Place, inner: str) -> list[SourceFile]:
    """A DatasetDict of one split is that split; of several, the user says which: a test split is no pool."""
    splits = _json(place, f"{inner}/dataset_dict.json").get("splits", [])
    if len(splits) != 1:
        raise ZpdError(
            f"{place.shown!r} is a dataset with the splits {_some(splits)}; name the one to read, "
            f"e.g. {place.shown.rstrip('/')}/{splits[0] if splits else 'train'}"
        )
    return _dataset(place, f"{inner}/{splits[0]}")


def _dataset(place: _Place, inner: str) -> list[SourceFile]:
    entries = _json(place, f"{inner}/state.json").get("_data_files", [])
    infos = place.filesystem.get_file_info([f"{inner}/{entry['filename']}" for entry in entries])
    missing = [info.path for info in infos if info.type != fs.FileType.File]
    if missing or not infos:
        raise ZpdError(
            f"{place.shown!r} is an incomplete dataset: its state.json names {len(infos)} files, "
            f"of which these are missing: {_some(missing)}; save it again"
        )
    return [place.file(info.path, "arrow", info.size) for info in infos]


def _json(place: _Place, path: str) -> dict:
    with place.filesystem.open_input_stream(path, compression=None) as stream:
        content = stream.read()
    try:
        value = json.loads(content)
    except ValueError as error:
        raise ZpdError(unreadable(path, error)) from error
    return value if isinstance(value, dict) else {}


def _beside(place: _Place) -> str:
    """What is in the nearest directory that exists, closest names first."""
    directory, name = place.inner.rstrip("/"), ""
    try:
        while directory.strip("/") and (not name or not _is_directory(place.filesystem, directory)):
            directory, _, name = directory.rpartition("/")
        infos = place.filesystem.get_file_info(fs.FileSelector(directory or "/"))
    except (OSError, pa.ArrowException):
        return ""
    names = sorted(info.base_name for info in infos)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"; the nearest names in {directory or '/'} are {_some(near or names)}"


def _is_directory(filesystem: fs.FileSystem, path: str) -> bool:
    return filesystem.get_file_info(path).type == fs.FileType.Directory


def _some(names: Iterable[str]) -> str:
    """Up to five names, quoted; 'nothing' for none."""
    listed = [repr(name) for name in names]
    return (", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")) or "nothing"
