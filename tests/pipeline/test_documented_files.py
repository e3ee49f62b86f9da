"""docs/reference/files.md tells every field of the JSON files that have no type in the code."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.pipeline.processes import ROOT, Quickstart
from zpd_ray.rundir.store import Store

PAGE = (ROOT / "docs/reference/files.md").read_text(encoding="utf-8")


def fields(title: str) -> set[str]:
    """The first column of the table below a heading."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", section, flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize(
    ("title", "file", "missing"),
    [
        ("`manifest.json`", "manifest.json", set()),
        ("`pool.json`, `evaluation/pool.json`", "evaluation/pool.json", set()),
        ("`rehearsal.json`", "rehearsal.json", set()),
        ("`stages/NN/train.json`", "stages/00/train.json", {"adopted"}),
    ],
)
def test_fields_are_those_of_a_run(quickstart: Quickstart, title: str, file: str, missing: set[str]) -> None:
    found: dict[str, Any] = Store(str(quickstart.output)).read_json(file)
    assert fields(title) == found.keys() | missing


def test_totals_are_those_of_a_run(quickstart: Quickstart) -> None:
    measured = Store(str(quickstart.output)).read_json("stages/00/measured.json")
    assert fields("`stages/NN/measured.json`") == measured["answers"].keys()
