"""Why a row is no item."""

from __future__ import annotations

from typing import NamedTuple

# Reasons, fixed words so that they can be counted.
UNKNOWN_SHAPE = "unknown shape"
MISSING_COLUMN = "missing column"
WRONG_TYPE = "wrong type"
EMPTY_PROMPT = "empty prompt"
EMPTY_RESPONSE = "empty response"
BAD_MESSAGES = "bad messages"


class Bad(NamedTuple):
    """One of the reasons above, and what was got and expected."""

    reason: str
    detail: str


class BadRowError(Exception):
    """Raised on the way, where what is wrong is found; ``shapes.normalise`` returns its ``bad``."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.bad = Bad(reason, detail)
