"""Every field of the JSON files that are typed values in the code."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields

from generate.markdown import code, prose, table
from zpd_ray.ability import Ability, Standing
from zpd_ray.calibration import Calibration, Fit
from zpd_ray.rundir.records import Event, Metrics, Selection

HEAD = ("field", "type", "meaning")
# Where each lies in a run directory.
RECORDS = {
    Fit: "`stages/NN/fit.json`",
    Ability: "`ability` in `fit.json`",
    Standing: "An entry of `ability.stages` in `fit.json`",
    Calibration: "`calibration` in `fit.json`",
    Selection: "`selection.json`",
    Metrics: "`metrics.json`",
    Event: "A line of `events.jsonl`",
}


def records() -> str:
    """A heading and a table for each."""
    return "\n".join(f"## {title}\n\n{_record(kind)}" for kind, title in RECORDS.items())


def _record(kind: type) -> str:
    names = [field.name for field in fields(kind)]
    intro, told = split_docstring(kind.__doc__ or "", names)
    told |= _comments(kind, set(names) - told.keys())
    rows = [
        (code(field.name), prose(code(field.type)), prose(told.get(field.name, ""))) for field in fields(kind)
    ]
    return f"{prose(intro)}\n\n{table(HEAD, rows)}"


def split_docstring(docstring: str, names: list[str]) -> tuple[str, dict[str, str]]:
    """What a docstring says of all of it, and of each field: ``name, other: what they are; third: ...``."""
    name = "(?:``)?(?:" + "|".join(names) + ")(?:``)?"
    pieces = re.split(rf"(?:^|(?<=[\s(]))({name}(?:(?:, | and ){name})*): ", " ".join(docstring.split()))
    told = {}
    for which, text in zip(pieces[1::2], pieces[2::2], strict=True):
        told |= dict.fromkeys(re.findall(r"\w+", which.replace(" and ", " ")), text.strip(" ;."))
    return pieces[0].strip(), told


def _comments(kind: type, names: set[str]) -> dict[str, str]:
    """Comments beside the fields, where the docstring says nothing of them."""
    found = re.findall(r"^    (\w+): .*?#\s*(.+)$", inspect.getsource(kind), flags=re.MULTILINE)
    return {name: text for name, text in found if name in names}
