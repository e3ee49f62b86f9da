"""Files of a run directory: a local path or any URI that pyarrow.fs opens.

Every file appears whole or not at all. The JSON file that closes a step is written last, so that its presence
proves the step; ``metrics.json`` proves the stage. What the files are called: ``zpd_ray.rundir.layout``.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from zpd_ray.engines.base import ModelRef
from zpd_ray.engines.remote import with_weights
from zpd_ray.errors import ZpdError
from zpd_ray.rundir.row_groups import rows_of
from zpd_ray.uris import check_secrets, open_filesystem, patiently, without_options

_APPENDING = Lock()  # measuring and training may both have something to tell


class Store:
    """Files of a run by their name relative to the run directory. Cheap to send to another process."""

    def __init__(self, root: str) -> None:
        """``root``: the run directory, path or URI. Nothing is created yet."""
        self.uri = root if "://" in root else str(Path(root).expanduser().resolve())
        self.root = without_options(self.uri).rstrip("/")  # names of files may be joined to it
        self.check_held: Callable[[], None] | None = None  # before a write: that the lock is still ours
        self._open()

    def _open(self) -> None:
        if "://" in self.uri:
            check_secrets("output", self.uri)
            try:
                self.fs, self.base = open_filesystem(self.uri)
            except (OSError, ValueError) as problem:
                raise ZpdError(
                    f"cannot open output = {self.uri!r}: {problem}; expected a path, or a URI that "
                    "pyarrow.fs opens (file, s3, gs, hdfs, abfs)"
                ) from None
        else:
            self.fs, self.base = pafs.LocalFileSystem(), self.root

    def __reduce__(self) -> tuple[Any, ...]:
        return (Store, (self.uri,))

    @property
    def is_local(self) -> bool:
        """Whether plain file paths work."""
        return isinstance(self.fs, pafs.LocalFileSystem)

    def path(self, name: str = "") -> str:
        """Path of a file on ``self.fs``."""
        return f"{self.base}/{name}" if name else self.base

    @patiently
    def exists(self, name: str) -> bool:
        """Whether the file or directory is there."""
        return bool(self.fs.get_file_info(self.path(name)).type != pafs.FileType.NotFound)

    @patiently
    def names(self, directory: str) -> list[str]:
        """Sorted names of the finished files in a directory; empty when there is no such directory."""
        selector = pafs.FileSelector(self.path(directory), allow_not_found=True)
        found = (f.base_name for f in self.fs.get_file_info(selector) if f.is_file)
        return sorted(name for name in found if not name.startswith("."))

    @patiently
    def entries(self, directory: str) -> list[str]:
        """Sorted names of everything in a directory, unfinished and hidden files included."""
        if self.fs.get_file_info(self.path(directory)).type != pafs.FileType.Directory:
            return []
        infos = self.fs.get_file_info(pafs.FileSelector(self.path(directory)))
        return sorted(info.base_name for info in infos)

    def write_bytes(self, name: str, content: bytes | pa.Buffer) -> None:
        """Replace a file by ``content`` in one step: a reader sees all of it or none."""
        self._may_write()
        parent, _, leaf = self.path(name).rpartition("/")
        # Object stores make a file visible on close only; a local file needs the rename.
        target = f"{parent}/.{leaf}.{uuid.uuid4().hex}" if self.is_local else self.path(name)
        try:
            self._put(target, content)
            if self.is_local:
                self.fs.move(target, self.path(name))
        except OSError as problem:
            raise self._unwritable(name, problem) from problem
        finally:
            if self.is_local and os.path.exists(target):
                os.unlink(target)

    def _may_write(self) -> None:
        if self.check_held is not None:
            self.check_held()

    @patiently
    def _put(self, target: str, content: bytes | pa.Buffer) -> None:
        self.fs.create_dir(target.rpartition("/")[0], recursive=True)
        with self.fs.open_output_stream(target) as stream:
            stream.write(content)

    def _unwritable(self, name: str, problem: OSError) -> ZpdError:
        return ZpdError(
            f"cannot write {self.path(name)}: {problem}; expected a run directory with free space and "
            "permission to write; free some space or set output to another place, and run again"
        )

    @patiently
    def read_bytes(self, name: str) -> bytes:
        """The content of a file."""
        with self.fs.open_input_stream(self.path(name)) as stream:
            return bytes(stream.read())

    def write_json(self, name: str, value: Any) -> None:
        """Replace a file by a value as JSON; NaN is refused."""
        self.write_bytes(name, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """The value in a JSON file."""
        return json.loads(self.read_bytes(name))

    def write_table(self, name: str, table: pa.Table, group_rows: int | None = None) -> None:
        """Replace a parquet file by ``table`` in one step; equal tables give equal bytes.

        group_rows: rows of a row group, where ``read_rows`` will be asked for some of them.
        """
        sink = pa.BufferOutputStream()
        # Statistics would put the least and the greatest text of each group into the footer: up to four times
        # its size.
        how: dict[str, Any] = {"row_group_size": group_rows, "write_statistics": group_rows is None}
        pq.write_table(table, sink, compression="zstd", **how)
        self.write_bytes(name, sink.getvalue())

    @patiently
    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """The table in a parquet file; of some columns in the order that they are asked for."""
        # Not pq.read_table, which asks an object store twice more what the file is, in half a millisecond.
        with pq.ParquetFile(self.path(name), filesystem=self.fs, pre_buffer=True) as file:
            table = file.read(columns)
        return table if columns is None else table.select(columns)

    @patiently
    def read_rows(self, name: str, rows: NDArray[np.int64], columns: list[str]) -> pa.Table:
        """Some columns of these rows of a parquet file, in this order; few more rows are read than those."""
        with pq.ParquetFile(self.path(name), filesystem=self.fs) as file:
            return rows_of(file, rows, columns)

    @patiently
    def count_rows(self, name: str) -> int:
        """Rows of a parquet file, of which only the footer is read."""
        return int(pq.read_metadata(self.path(name), filesystem=self.fs).num_rows)

    def append_line(self, name: str, value: dict[str, Any]) -> None:
        """One more line of JSON in a file. Lines are few (several per stage), so the file is rewritten."""
        with _APPENDING:
            so_far = self.read_bytes(name) if self.exists(name) else b""
            self.write_bytes(name, so_far + (json.dumps(value) + "\n").encode())

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        """The values in a file of JSON lines; none when there is no such file."""
        return [json.loads(line) for line in self.read_bytes(name).splitlines()] if self.exists(name) else []

    def remove(self, directory: str) -> None:
        """Delete a directory with its content, if it is there."""
        self._may_write()
        with suppress(FileNotFoundError):  # or an attempt has deleted it whose answer was lost
            patiently(self.fs.delete_dir)(self.path(directory))

    def upload(self, local: str, name: str, only: Iterable[str] | None = None, beside: bool = False) -> None:
        """Copy a local directory to ``name`` of the run directory, replacing what is there.

        only: names of the files in it to copy; None: all that is below it. beside: files of other names stay.
        """
        self._may_write()
        if not beside:
            self.remove(name)
        try:
            self.fs.create_dir(self.path(name), recursive=True)
            copy, here = patiently(pafs.copy_files), pafs.LocalFileSystem()
            for part in [""] if only is None else [f"/{file}" for file in only]:
                copy(local + part, self.path(name) + part, here, self.fs)
        except OSError as problem:
            raise self._unwritable(name, problem) from problem

    def take_from(self, other: Store, directory: str) -> None:
        """A directory of another store, if it has it, under the same name here in place of what is here.

        Its files are linked where both stores are local and on one file system, since files of a run are
        replaced and never changed; else they are copied.
        """
        if not other.exists(directory):
            return
        source, target = other.path(directory), self.path(directory)
        self.remove(directory)
        try:
            if self.is_local and other.is_local:
                shutil.copytree(source, target, copy_function=_link)
            else:
                self.fs.create_dir(target, recursive=True)
                patiently(pafs.copy_files)(source, target, other.fs, self.fs)
        except OSError as problem:
            raise self._unwritable(directory, problem) from problem

    def fetched(self, model: ModelRef, into: str) -> ModelRef:
        """The model with local paths in place of URIs and directories of the run: for who loads it.

        into: a directory for copies, where the run directory is not local.
        """

        def local(path: str | None) -> str | None:
            inside = path is not None and path.startswith(f"{self.root}/")
            return self.local_copy(path[len(self.root) + 1 :], into) if path and inside else path

        base = local(model.base) or model.base
        return replace(model, base=with_weights(base), adapter=local(model.adapter))

    @patiently
    def local_copy(self, name: str, into: str) -> str:
        """A local path with the content of directory ``name``: itself when the run directory is local."""
        if self.is_local:
            return self.path(name)
        target = f"{into}/{name}"
        Path(target).mkdir(parents=True, exist_ok=True)
        pafs.copy_files(self.path(name), target, self.fs, pafs.LocalFileSystem())
        return target


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
