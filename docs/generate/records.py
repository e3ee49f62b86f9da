"""Every field of the JSON files that are typed values in the code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from generate.markdown import code, prose, table
from zpd_ray.calibration import Fit
from zpd_ray.rundir.records import Event, Metrics, Selection

HEAD = ("field", "type", "meaning")
# Where each lies in a run directory; what is inside one comes after it.
RECORDS = {
    Fit: "`stages/NN/fit.json`",
    Selection: "`selection.json`",
    Metrics: "`metrics.json`",
    Event: "A line of `events.jsonl`",
}


def records() -> str:
    """A heading and a table for each."""
    return "\n".join(_record(kind, title) for kind, title in RECORDS.items())


def _record(kind: type, title: str) -> str:
    names = [field.name for field in fields(kind)]
    intro, told = split_docstring(kind.__doc__ or "", names)
    told |= _comments(kind, set(names) - told.keys())
    told |= {
        name: f"see `{other}`"
        for name in set(names) - told.keys()
        for other, text in told.items()
        if f"``{name}``" in text
    }
    rows = [
        (code(each.name), prose(code(each.type)), prose(told.get(each.name, ""))) for each in fields(kind)
    ]
    inner = [_record(each, f"`{each.__name__}`") for each in _inside(kind)]
    return "\n".join([f"## {title}\n\n{prose(intro)}\n\n{table(HEAD, rows)}", *inner])


def _inside(kind: type) -> Iterator[type]:
    """Records that are the type of a field, or of its entries."""
    for hint in get_type_hints(kind).values():
        yield from (
            each for each in (hint, *_arguments(hint)) if isinstance(each, type) and is_dataclass(each)
        )


def _arguments(hint: Any) -> Iterator[Any]:
    for each in get_args(hint):
        yield each
        yield from _arguments(each)


def split_docstring(docstring: str, names: list[str]) -> tuple[str, dict[str, str]]:
    """What a docstring says of all of it, and of each field: ``name, other: what they are; third: ...``."""
    name = "(?:``)?(?:" + "|".join(names) + ")(?:``)?"
    pieces = re.split(rf"(?:^|(?<=[\s(]))({name}(?:(?:, | and ){name})*): ", " ".join(docstring.split()))
    told: dict[str, str] = {}
    for which, text in zip(pieces[1::2], pieces[2::2], strict=True):
        told |= dict.fromkeys(re.findall(r"\w+", which.replace(" and ", " ")), text.strip(" ;."))
    return pieces[0].strip(), told


def _comments(kind: type, names: set[str]) -> dict[str, str]:
    """Comments beside the fields, where the docstring says nothing of them."""
    found = re.findall(r"^    (\w+): .*?#\s*(.+)$", inspect.getsource(kind), flags=re.MULTILINE)
    return {name: text for name, text in found if name in names}
