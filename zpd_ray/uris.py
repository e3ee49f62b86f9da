"""URIs that users give: opening them, what follows the ?, and credentials, which do not belong in them."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import pyarrow.fs as pafs

from zpd_ray.errors import ZpdError

ATTEMPTS = 10  # at one request
MOST_SECONDS = 20.0  # between two of them
CONNECT_SECONDS, SILENT_SECONDS = 10.0, 30.0  # until a server that does not answer is asked again

P = ParamSpec("P")
T = TypeVar("T")

# user:password@ before the host, and options that hold a secret.
_SECRETS = re.compile(r"//[^/@?]*:[^/@?]*@|[?&][^=&]*(?:secret|password|token|key)[^=&]*=", re.IGNORECASE)


def without_options(uri: str) -> str:
    """A URI without the options after its ?, which say how to reach the place; a path as it is."""
    return uri.partition("?")[0] if "://" in uri else uri


def check_secrets(setting: str, uri: str) -> None:
    """Refuse a URI with credentials: it is recorded with the run. Raises ZpdError that does not show them."""
    if "://" in uri and _SECRETS.search(uri):
        raise ZpdError(
            f"{setting} is a URI of {uri.partition('://')[0]} with credentials in it, which would be "
            "recorded with the run; give them in the environment of all nodes (AWS_ACCESS_KEY_ID, ...) or as "
            "a role"
        )


def open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a URI, and the path in it. Raises what ``pyarrow.fs.FileSystem.from_uri`` raises.

    What may pass (a store that is busy or does not answer, a connection that is cut) is tried again, with
    pauses that grow and are drawn by lot: in pyarrow for GCS and Azure, by ``PatientS3`` for S3. A refusal is
    not.
    """
    found, path = pafs.FileSystem.from_uri(uri)
    if isinstance(found, pafs.S3FileSystem):
        _, (options,) = found.__reduce__()
        found = PatientS3(options)
    return found, path


class PatientS3(pafs.S3FileSystem):
    """S3 with time for a busy store, also where it is sent to another process.

    What ``from_uri`` opens tries again after .2 s whatever happens, and takes 3 s of silence for a failure.
    AWS' own strategy waits for random() 2^n s, at most 20 s.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        """options: as S3FileSystem takes them."""
        patience = {
            "retry_strategy": pafs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
            "connect_timeout": CONNECT_SECONDS,
            "request_timeout": SILENT_SECONDS,
        }
        super().__init__(**(options | patience))

    def __reduce__(self) -> tuple[Any, ...]:
        _, (options,) = super().__reduce__()
        return PatientS3, (options,)


def patiently(work: Callable[P, T]) -> Callable[P, T]:
    """Do it again where a store answers 429, too many requests, of which the library of AWS knows nothing.

    ``work`` may be done twice: it writes whole files or reads.
    """

    @wraps(work)
    def tried(*given: P.args, **named: P.kwargs) -> T:
        for attempt in range(ATTEMPTS - 1):
            try:
                return work(*given, **named)
            except OSError as problem:
                if "HTTP status 429" not in str(problem):
                    raise
            time.sleep(random.random() * min(MOST_SECONDS, 2.0**attempt))
        return work(*given, **named)

    return tried
