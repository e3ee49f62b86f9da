"""Whether the files of a source are still those that were read."""

from __future__ import annotations

import hashlib

from zpd_ray.errors import ZpdError
from zpd_ray.readers.sources import SourceFile, unreadable

Fingerprint = dict[str, str | int]

_CHUNK = 1 << 20


def fingerprint(file: SourceFile) -> Fingerprint:
    """Path, size in bytes, time of change and sha256 of the file as stored, read in chunks of 1 MiB."""
    digest, size = hashlib.sha256(), 0
    try:
        with file.filesystem().open_input_stream(file.inner, compression=None) as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise ZpdError(unreadable(file.path, error)) from error
    return {"path": file.path, "size": size, "sha256": digest.hexdigest(), "changed_ns": changed_ns(file)}


def changed_ns(file: SourceFile) -> int:
    """When the file was last changed, nanoseconds since 1970; 0 where the file system does not say."""
    return int(file.filesystem().get_file_info(file.inner).mtime_ns or 0)


def changes_of(files: list[SourceFile], known: list[Fingerprint]) -> str:
    """What has happened to files since their fingerprints were taken; "" for nothing.

    Files that are gone do not count. A file is read only where its time of change is another one.
    """
    before = {str(one["path"]): one for one in known}
    for file in files:
        old = before.get(file.path)
        if old is None:
            return f"{file.path} is new"
        if file.size != old["size"]:
            return f"{file.path} had {old['size']} bytes and has {file.size}"
        if changed_ns(file) != old["changed_ns"] and fingerprint(file)["sha256"] != old["sha256"]:
            return f"{file.path} has other contents"
    return ""
