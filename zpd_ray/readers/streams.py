"""Decompressed bytes and lines of a file, in constant memory, up to the very byte where it is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

from zpd_ray.errors import ZpdError
from zpd_ray.readers import rows
from zpd_ray.readers.sources import SourceFile, unreadable

CHUNK = 1 << 20  # bytes


class DamagedError(Exception):
    """A compressed file ended early or holds what does not decompress."""


class Line(NamedTuple):
    """A line without its newline; ``problem`` and ``detail`` as in ``rows.RawRow``."""

    number: int
    raw: bytes
    problem: str | None = None
    detail: str = ""


def chunks(file: SourceFile) -> Iterator[bytes]:
    """Decompressed chunks of at most 1 MiB.

    Raises DamagedError after everything that decompresses was given; ZpdError when the file cannot be read.
    """
    done = 0
    try:
        with _open(file) as stream:
            while chunk := stream.read(CHUNK):
                done += len(chunk)
                yield chunk
    except OSError as error:
        if file.compression is None:
            raise ZpdError(unreadable(file.path, error)) from error
        yield from _up_to_the_damage(file, done)


def _open(file: SourceFile) -> pa.NativeFile:
    return file.filesystem().open_input_stream(file.inner, compression=file.compression)


def _up_to_the_damage(file: SourceFile, done: int) -> Iterator[bytes]:
    """A failing read loses the part of its chunk that was sound, so the last chunk is read byte by byte."""
    sound = bytearray()
    try:
        with _open(file) as stream:
            while done and (skipped := len(stream.read(min(done, CHUNK)))):
                done -= skipped
            while len(sound) < CHUNK and (byte := stream.read(1)):
                sound += byte
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise ZpdError(unreadable(file.path, error)) from error
    except OSError as error:
        if sound:
            yield bytes(sound)
        raise DamagedError(str(error)) from error
    raise ZpdError(unreadable(file.path, OSError("a read failed, and then succeeded")))


def lines(file: SourceFile) -> Iterator[Line]:
    """Lines split at ``\\n``, numbered from 0. One longer than ``rows.MAX_ROW_BYTES`` is cut and marked,
    and a damaged file ends with a marked line: what was left of the last one.
    """
    number, tail, overlong = 0, b"", False
    try:
        for chunk in chunks(file):
            *whole, tail = (tail + chunk).split(b"\n")
            for raw in whole:
                if not overlong:
                    yield _checked(number, raw)
                number, overlong = number + 1, False
            if overlong:
                tail = b""
            elif len(tail) > rows.MAX_ROW_BYTES:
                yield _checked(number, tail)
                tail, overlong = b"", True
        if tail and not overlong:
            yield _checked(number, tail)
    except DamagedError as error:
        yield Line(number, tail, rows.DAMAGED, f"the file ends in the middle or is corrupt: {error}")


def _checked(number: int, raw: bytes) -> Line:
    if len(raw) > rows.MAX_ROW_BYTES:
        detail = f"more than {rows.MAX_ROW_BYTES} bytes in one line"
        return Line(number, raw[: rows.EXCERPT], rows.TOO_LONG, detail)
    return Line(number, raw)
