"""The dashboard asks for what a run exports, and nothing else; its parts are what Grafana expects."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import jsonschema

from tests.cluster.files import ROOT
from zpd_ray.pipeline.cluster.metrics import GAUGES, TAGS

DASHBOARD: dict[str, Any] = json.loads((ROOT / "cluster" / "grafana" / "zpd-ray.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
WORDS = {"max", "sum", "by", "label_values", "run", "stage"}  # of PromQL, and labels

SOURCE = {
    "type": "object",
    "properties": {"type": {"const": "prometheus"}, "uid": {"const": "${datasource}"}},
    "required": ["type", "uid"],
    "additionalProperties": False,
}
WHOLE, NATURAL = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}
SCHEMA = {
    "type": "object",
    "required": ["title", "uid", "schemaVersion", "panels", "templating", "time", "refresh", "tags"],
    "properties": {
        "title": WHOLE,
        "uid": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,40}$"},
        "schemaVersion": {"type": "integer", "minimum": 36},
        "id": {"type": "null"},  # Grafana's own, of one installation
        "panels": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["id", "type", "title", "description", "datasource", "gridPos", "targets"],
                "properties": {
                    "id": {"type": "integer", "minimum": 1},
                    "type": {"enum": ["timeseries", "stat"]},
                    "title": WHOLE,
                    "description": WHOLE,
                    "datasource": SOURCE,
                    "gridPos": {
                        "type": "object",
                        "required": ["x", "y", "w", "h"],
                        "properties": {"x": NATURAL, "y": NATURAL, "w": NATURAL, "h": NATURAL},
                    },
                    "targets": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["refId", "expr", "datasource", "legendFormat"],
                            "properties": {"refId": WHOLE, "expr": WHOLE, "datasource": SOURCE},
                        },
                    },
                },
            },
        },
    },
}


def asked(query: str) -> set[str]:
    """Names of metrics in a query."""
    bare = re.sub(r"\{[^}]*\}|\b\d+(\.\d+)?\b", "", query)
    return set(re.findall(r"[a-zA-Z_][a-zA-Z0-9_]*", bare)) - WORDS


def test_its_parts_are_those_of_a_dashboard() -> None:
    jsonschema.validate(DASHBOARD, SCHEMA)
    assert VARIABLES["datasource"]["type"] == "datasource"
    assert VARIABLES["datasource"]["query"] == "prometheus"
    assert VARIABLES["run"]["datasource"]["uid"] == "${datasource}"
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)


def test_panels_lie_side_by_side() -> None:
    places = [panel["gridPos"] for panel in PANELS]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert beside or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], (a, b)


def test_every_metric_is_one_that_a_run_exports_and_none_is_missing() -> None:
    exported = {f"ray_{name}" for name in GAUGES}
    names = set().union(*map(asked, QUERIES))
    assert names == exported
    assert asked(VARIABLES["run"]["query"]["query"]) <= exported


def test_queries_know_the_labels() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            labels = re.findall(r"(\w+)=~", target["expr"]) + re.findall(
                r"\{\{(\w+)\}\}", target["legendFormat"]
            )
            grouped = {
                name for by in re.findall(r"by \(([^)]*)\)", target["expr"]) for name in by.split(", ")
            }
            assert grouped | set(labels) <= set(TAGS)
            assert 'run=~"$run"' in target["expr"]
            assert target["expr"].count("(") == target["expr"].count(")")
