"""What a row holds beside its item: kept with it, as JSON, to the end of a run and into exports."""

from __future__ import annotations

import json
import math
from typing import Any

from zpd_ray.config import SourceConfig
from zpd_ray.readers.columns import (
    CONTEXTS,
    FIELDS,
    PROMPTS,
    RESPONSES,
    SOLUTION,
    SYSTEMS,
    pair_of,
    takes_tools,
)

# Columns that a shape reads; of a pair of columns, those that it finds.
_READ = {
    "messages": frozenset(("messages", "response")),
    "sharegpt": frozenset(("conversations",)),
    "alpaca": frozenset(("instruction", "input", "output")),
    "question_answer": frozenset(("question", "answer")),
}
_PROMPTS, _RESPONSES = {"messages", "conversations", *PROMPTS}, {*RESPONSES, SOLUTION}


def left_over(row: dict, view: dict, shape: str, source: SourceConfig) -> str | None:
    """The columns of a row that no field of the item took, with their own names, as a JSON object; or None.

    view: the row as ``view_of`` shows it, of a shape. What JSON cannot hold is told: dates and decimals as
    text, bytes by their number, numbers that are not finite as null.
    """
    used = taken(row, view, shape, source)
    rest = {
        str(name): content
        for name, content in row.items()
        if name not in used and str(name).casefold() not in used and content is not None
    }
    return _as_json(rest) if rest else None


def taken(row: dict, view: dict, shape: str, source: SourceConfig) -> frozenset[str]:
    """Names of columns that fields of the item take."""
    mapped = source.columns
    read = _READ.get(shape) or frozenset(name for name in pair_of(view) if name)
    if shape in ("alpaca", "question_answer", "prompt_response", "prompt"):
        read |= {name for name in (*CONTEXTS, *SYSTEMS) if isinstance(view.get(name), str)}
    if "prompt" in mapped or "messages" in mapped:
        read -= _PROMPTS
    if "response" in mapped or source.prompts_alone:
        read -= _RESPONSES
    own = {field for field in FIELDS if field not in mapped}
    if takes_tools(view, shape, source):
        own |= {"tools"} - mapped.keys()
    return read | own | {column for column in mapped.values() if column in row}


def _as_json(rest: dict[str, Any]) -> str:
    try:
        text = json.dumps(rest, ensure_ascii=False, allow_nan=False, default=_told)
        text.encode()
    except ValueError:  # a number that is not finite, or text that is no valid Unicode
        text = json.dumps(_finite(rest), default=_told)
    return text


def _told(content: object) -> str:
    return f"{len(content)} bytes" if isinstance(content, (bytes, bytearray)) else str(content)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(name): _finite(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
