"""Errors that a user can act on."""

from __future__ import annotations

__all__ = ["ZpdError"]


class ZpdError(ValueError):
    """What was wrong, what was got, what was expected, what to do: one sentence, shown without a traceback.

    The command line prints it and exits with 2; from Python it is an ordinary ``ValueError``.
    """


def first_line(error: Exception) -> str:
    """What a library's error says, on one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
