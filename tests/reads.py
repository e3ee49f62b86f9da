"""What is read of a file: bytes counted, and texts that nobody can read."""

from __future__ import annotations

from collections import Counter
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from zpd_ray.rundir import Store

TEXTS = ("messages", "response", "response_more", "tools", "answer", "choices", "extra", "source_file")


class Counting(pafs.FSSpecHandler):
    """Local files; by name, as pool/part-000000.parquet, the bytes that were read, and how often."""

    def __init__(self) -> None:
        super().__init__(fsspec.filesystem("file"))
        self.bytes: Counter[str] = Counter()
        self.opened: Counter[str] = Counter()

    def open_input_file(self, path: str) -> pa.PythonFile:
        name = "/".join(path.split("/")[-2:])
        self.opened[name] += 1
        return pa.PythonFile(_Counted(open(path, "rb"), self.bytes, name), mode="r")


class _Counted:
    def __init__(self, file: Any, count: Counter[str], name: str) -> None:
        self._file, self._count, self._name = file, count, name

    def read(self, size: int = -1) -> bytes:
        found: bytes = self._file.read(size)
        self._count[self._name] += len(found)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def counted(store: Store) -> tuple[Store, Counting]:
    """The same store, of which reads are counted in this process."""
    handler = Counting()
    found = Store(store.uri)
    found.fs = pafs.PyFileSystem(handler)
    return found, handler


def spoil(store: Store, name: str, columns: tuple[str, ...] = TEXTS) -> int:
    """Overwrite what some columns of a parquet file hold, so that decoding them fails; how many bytes."""
    path, spoilt = store.path(name), 0
    footer = pq.read_metadata(path)
    with open(path, "r+b") as file:
        for group in range(footer.num_row_groups):
            for at in range(footer.num_columns):
                chunk = footer.row_group(group).column(at)
                if chunk.path_in_schema.split(".")[0] in columns:
                    pages = (chunk.dictionary_page_offset, chunk.data_page_offset)
                    file.seek(min(page for page in pages if page))
                    file.write(b"\xff" * chunk.total_compressed_size)
                    spoilt += chunk.total_compressed_size
    return spoilt
