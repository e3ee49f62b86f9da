"""Decompressed bytes and lines of a file, in constant memory, up to the very byte where it is damaged."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

from zpd_ray.errors import ZpdError
from zpd_ray.readers import rows
from zpd_ray.readers.sources import SourceFile, unreadable

CHUNK = 1 << 20  # bytes

# First bytes of what is no text, and what to do with it.
_BINARY = {
    b"\x1f\x8b": "gzip; decompress it, or let its name end in .gz",
    b"\x28\xb5\x2f\xfd": "Zstandard; decompress it, or let its name end in .zst",
    b"PAR1\x15": "Parquet; let its name end in .parquet",
}
_COMPRESSED = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
}
_WIDE = {  # by its byte order mark, or without one by the zero bytes of its first two characters, if ASCII
    "UTF-32": re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff"),
    "UTF-16": re.compile(rb"\xff\xfe|\xfe\xff"),
    "UTF-16LE": re.compile(rb"[\t\n\r -~]\0[\t\n\r -~]\0"),
    "UTF-16BE": re.compile(rb"\0[\t\n\r -~]\0[\t\n\r -~]"),
}
_TO_PLAIN = {"gzip": "gzip -dc", "zstd": "zstd -dc"}


class DamagedError(Exception):
    """A compressed file ended early or holds what does not decompress."""


class Line(NamedTuple):
    """A line without its newline; ``problem`` and ``detail`` as in ``rows.RawRow``."""

    number: int
    raw: bytes
    problem: str | None = None
    detail: str = ""


def chunks(file: SourceFile, start: int = 0) -> Iterator[bytes]:
    """Decompressed chunks of at most 1 MiB; ``start``: the first byte, of a file that is not compressed.

    Raises DamagedError after everything that decompresses was given; ZpdError when the file cannot be read,
    or is not what its name says: of another compression or none, not text, or text in UTF-16.
    """
    done = 0
    try:
        with _open(file, start) as stream:
            while chunk := stream.read(CHUNK):
                if not done and not start:
                    _check_text(file, chunk)
                done += len(chunk)
                yield chunk
    except OSError as error:
        if file.compression is None:
            raise ZpdError(unreadable(file.path, error)) from error
        if not done:
            _check_compressed(file)
        yield from _up_to_the_damage(file, done)


def _open(file: SourceFile, start: int = 0) -> pa.NativeFile:
    if start:
        stream = file.filesystem().open_input_file(file.inner)
        stream.seek(start)
        return stream
    return file.filesystem().open_input_stream(file.inner, compression=file.compression)


def _check_text(file: SourceFile, start: bytes) -> None:
    for magic, told in _BINARY.items():
        if start.startswith(magic):
            raise ZpdError(f"{file.path} holds no text, as a {file.format} file has to, but {told}")
    encoding = next((name for name, pattern in _WIDE.items() if pattern.match(start)), None)
    if encoding:
        raise ZpdError(
            f"{file.path} is text in {encoding}, expected UTF-8; convert it: "
            f"{piped(file, f'iconv -f {encoding} -t UTF-8', file.extension)}"
        )


def _check_compressed(file: SourceFile) -> None:
    """Of a file that gives no byte: raises ZpdError where it is not compressed as its name says."""
    try:
        with file.filesystem().open_input_stream(file.inner, compression=None) as stream:
            start = stream.read(4)
    except OSError as error:
        raise ZpdError(unreadable(file.path, error)) from error
    if file.compression and not _COMPRESSED[file.compression].match(start):
        plain, ending = os.path.splitext(os.path.basename(file.path))
        raise ZpdError(
            f"{file.path} is called {ending} and is not {file.compression}: it begins with {start!r}; if it "
            f"is plain text, rename it without {ending}, to {plain}"
        )


def piped(file: SourceFile, command: str, ending: str = ".jsonl") -> str:
    """A shell command that writes what ``command`` makes of the file, decompressed, to a new one."""
    stem = os.path.basename(file.path).partition(".")[0]
    into = f"> {shlex.quote(f'{stem}.new{ending}')}"
    if file.compression is None:
        return f"{command} {shlex.quote(file.path)} {into}"
    return f"{_TO_PLAIN[file.compression]} {shlex.quote(file.path)} | {command} {into}"


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


class Run(NamedTuple):
    """Consecutive whole lines, each with its newline except perhaps the last. number: of the first."""

    number: int
    text: bytes


def lines(file: SourceFile) -> Iterator[Line]:
    """Lines split at ``\\n``, numbered from 0. One longer than ``rows.MAX_ROW_BYTES`` is cut and marked,
    and a damaged file ends with a marked line: what was left of the last one.
    """
    for run in runs(file):
        if isinstance(run, Line):
            yield run
        else:
            for number, raw in enumerate(run.text.removesuffix(b"\n").split(b"\n"), run.number):
                yield Line(number, raw)


def runs(file: SourceFile, start: int = 0, stop: int | None = None, number: int = 0) -> Iterator[Run | Line]:
    """The same, as many lines at a time as a chunk holds; marked ones by themselves.

    start, stop: bytes between which lines begin that are given, the first of which has this number.
    """
    tail, overlong = b"", False
    try:
        for chunk in _of_lines_in(file, start, stop):
            text, newline, tail = (tail + chunk).rpartition(b"\n")
            if newline and overlong:  # the rest of it
                _, newline, text = text.partition(b"\n")
                number, overlong = number + 1, False
            if newline:
                yield from _bounded(number, text + newline)
                number += text.count(b"\n") + 1
            if overlong:
                tail = b""
            elif len(tail) > rows.MAX_ROW_BYTES:
                yield _too_long(number, tail)
                tail, overlong = b"", True
        if tail and not overlong:
            yield Run(number, tail)
    except DamagedError as error:
        yield Line(number, tail, rows.DAMAGED, f"the file ends in the middle or is corrupt: {error}")


def _of_lines_in(file: SourceFile, start: int, stop: int | None) -> Iterator[bytes]:
    """The bytes of the lines that begin in [start, stop)."""
    place, inside = max(0, start - 1), start == 0  # place: of the end of the chunk
    for whole in chunks(file, place):
        chunk = whole
        place += len(whole)
        if not inside:  # a line begins after a newline
            inside = b"\n" in whole
            chunk = whole.partition(b"\n")[2]
            if stop is not None and place - len(chunk) >= stop:
                return
        # The last line ends with the first newline from the byte before the stop on.
        if stop is not None and place >= stop:
            end = chunk.find(b"\n", max(0, len(chunk) - (place - (stop - 1)))) + 1
            if end:
                yield chunk[:end]
                return
        yield chunk


def _bounded(number: int, text: bytes) -> Iterator[Run | Line]:
    """A run, around what is too long in it: the first line alone can be, a chunk is shorter."""
    first = text.find(b"\n")
    if first <= rows.MAX_ROW_BYTES:
        yield Run(number, text)
        return
    yield _too_long(number, text)
    if first + 1 < len(text):
        yield Run(number + 1, text[first + 1 :])


def _too_long(number: int, raw: bytes) -> Line:
    detail = f"more than {rows.MAX_ROW_BYTES} bytes in one line"
    return Line(number, raw[: rows.EXCERPT], rows.TOO_LONG, detail)
