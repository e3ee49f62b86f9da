"""Writing a file of an object store on condition that nobody has written it since, which a lock stands on.

pyarrow has no conditional writes; obstore (the extra ``object-store``) has them for S3, GCS and Azure alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from zpd_ray.errors import first_line
from zpd_ray.rundir.store import Store

AT_MOST = timedelta(seconds=15)  # that one write is tried for
SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "abfs": "azure", "abfss": "azure"}


class NoConditionsError(Exception):
    """Why files of a store cannot be written conditionally."""


@dataclass(frozen=True)
class Version:
    """A file as it was found or written. tag: what a write may be conditional on."""

    content: bytes
    tag: dict[str, str]
    modified: datetime  # by the store's clock


class ConditionalFile:
    """One file of a run directory in an object store."""

    def __init__(self, store: Store, name: str) -> None:
        """Raises NoConditionsError where obstore is not installed, or does not know the place."""
        if find_spec("obstore") is None:
            raise NoConditionsError("that needs obstore (pip install 'zpd-ray[object-store]')")
        self._place = _opened(store)
        _, _, key = store.path(name).partition("/")  # after the bucket or container
        self._key = key

    def read(self) -> Version | None:
        """The file; None where there is none. Raises obstore's errors."""
        import obstore

        try:
            found = obstore.get(self._place, self._key)
        except FileNotFoundError:
            return None
        return Version(bytes(found.bytes()), _tag(found.meta), found.meta["last_modified"])

    def write(self, content: bytes, after: dict[str, str] | None) -> dict[str, str] | None:
        """Write the file if it is still ``after`` (None: if there is none): its new tag; None: it is not.

        An attempt may have written it whose answer was lost: who gets None has to look. Raises
        NoConditionsError where the store says that it knows none, and obstore's errors.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, GenericError, NotSupportedError, PreconditionError

        mode: Any = "create" if after is None else after
        try:
            return _tag(obstore.put(self._place, self._key, content, mode=mode))
        except (AlreadyExistsError, PreconditionError):
            return None
        except (GenericError, NotSupportedError) as problem:
            if isinstance(problem, NotSupportedError) or " 501 " in first_line(problem):
                raise NoConditionsError("the store has no conditional writes") from problem
            raise


def _tag(told: Any) -> dict[str, str]:
    return {key: told[key] for key in ("e_tag", "version") if told.get(key)}


def _opened(store: Store) -> Any:
    """The bucket, as ``store`` reaches it; credentials are those of the environment or the machine's role."""
    from obstore.store import AzureStore, GCSStore, S3Store

    parts = urlsplit(store.uri)
    options, kind = dict(parse_qsl(parts.query)), SCHEMES.get(parts.scheme)
    endpoint, scheme = options.get("endpoint_override"), options.get("scheme", "https")
    if endpoint and "://" not in endpoint:
        endpoint = f"{scheme}://{endpoint}"
    common: dict[str, Any] = {
        "client_options": {"allow_http": scheme == "http", "timeout": AT_MOST},
        "retry_config": {"retry_timeout": AT_MOST},
    }
    if kind == "s3":
        address: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
        return S3Store(parts.hostname, region=store.fs.region, **address, **common)
    if kind == "gs" and endpoint is None:
        return GCSStore(parts.hostname, **common)
    if kind == "azure" and parts.username and parts.hostname:
        return AzureStore(parts.username, account_name=parts.hostname.partition(".")[0], **common)
    raise NoConditionsError(f"it is not known how to do that at {parts.scheme}://{parts.hostname or ''}")
