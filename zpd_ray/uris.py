"""URIs that users give: what follows the ?, and credentials, which do not belong in them."""

from __future__ import annotations

import re

from zpd_ray.errors import ZpdError

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
