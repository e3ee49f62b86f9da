"""What a reader is told on top of the page, of runs in which it has come about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import perform_in, questions, write_jsonl
from tests.report.page.html_tables import Page
from zpd_ray.rundir import Store
from zpd_ray.rundir.records import load_fit

pytestmark = [pytest.mark.nightly, pytest.mark.usefixtures("local_ray")]


def told(directory: Path, n: int = 1500, **sections: Any) -> tuple[Store, Page]:
    """A run and the page that it has written."""
    _, store = perform_in(directory, n=n, report=True, **sections)
    return store, Page(store.read_bytes("report.html").decode())


def test_accuracy_fell(tmp_path: Path) -> None:
    held_out = write_jsonl(tmp_path / "eval.jsonl", questions(400, 10**6))
    store, seen = told(
        tmp_path, evaluation={"path": str(held_out)}, engine={"simulated": {"theta": 1.0, "gain": -1.0}}
    )
    now = store.read_json("stages/00/metrics.json")["accuracy"]
    assert any(w.startswith("Stage 0: accuracy fell from 0.") and f"to {now:.3f}" in w for w in seen.warnings)


def test_nothing_in_the_zone(tmp_path: Path) -> None:
    sections = {"engine": {"simulated": {"theta": 9.0}}, "ability": {"allow_extreme": True}}
    _, seen = told(tmp_path, stages=1, **sections)
    assert any("nothing that was selected is in the zone" in warning for warning in seen.warnings)


def test_most_responses_are_unparsed(tmp_path: Path) -> None:
    store, seen = told(
        tmp_path,
        stages=1,
        measure={"grader": "numeric"},
        engine={"name": "tests.report.page.silent:Silent", "simulated": {"theta": -1.0}},
    )
    counted = store.read_json("stages/00/measured.json")["answers"]
    (warning,) = (warning for warning in seen.warnings if "the grader found no answer in most" in warning)
    assert f"({counted['unparsed']:,} of {counted['responses']:,}, " in warning


def test_drift(tmp_path: Path) -> None:
    store, seen = told(
        tmp_path, n=4000, measure={"scope": "probe"}, engine={"simulated": {"drift": {"g1": 1.5}}}
    )
    probed = load_fit(store, 1).probed
    assert probed is not None
    (part,) = probed.drifted
    assert f"Stage 1: {part.told}." in seen.warnings
    _, row = seen.tables["Probes and drift, in logits"]
    assert row[:4] == ["1", str(probed.asked), f"{probed.moved:.2f}", "group g1"]
    assert float(row[4]) == pytest.approx(part.shift, abs=0.01)
    assert row[-1] == str(part.items)
