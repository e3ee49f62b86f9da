"""The plot of a comparison: accuracy and NLL of each method against the budget, by Vega-Lite."""

from __future__ import annotations

from typing import Any

from zpd_ray.compare.file import ALL
from zpd_ray.compare.result import Line, Result
from zpd_ray.compare.statistics import Interval
from zpd_ray.report.page.drawing import Drawing

WIDTH, HEIGHT = 760, 260  # pixels of one of the two

Spec = dict[str, Any]


def svg(result: Result) -> str:
    """The drawing."""
    return Drawing().svg(spec(result))


def spec(result: Result) -> Spec:
    """Points with their intervals, side by side at each budget; dashed, the base model."""
    names = sorted({line.method for line in result.lines}, key=[line.method for line in result.lines].index)
    views = [
        _view([_row(line, line.accuracy) for line in result.lines], names, "accuracy", result.base_accuracy),
        _view([_row(line, line.nll) for line in result.lines], names, "NLL, nats per token", result.base_nll),
    ]
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "background": "white",
        "config": {"legend": {"orient": "bottom", "columns": 5, "labelLimit": 260, "title": None}},
        "vconcat": views,
    }


def _row(line: Line, value: Interval) -> dict[str, Any]:
    budget = "whole pool" if line.method == ALL else f"{100 * line.budget:g} %"
    return {"method": line.method, "budget": budget, **vars(value)}


def _view(rows: list[dict[str, Any]], names: list[str], title: str, base: Interval) -> Spec:
    y = {"type": "quantitative", "title": title, "scale": {"zero": False}}
    place = {
        "x": {
            "field": "budget",
            "type": "ordinal",
            "sort": None,
            "title": "budget",
            "axis": {"labelAngle": 0},
        },
        "xOffset": {"field": "method", "sort": names},
        "color": {"field": "method", "sort": names, "scale": {"scheme": "tableau20"}},
    }
    ends = {"y": {"field": "low", **y}, "y2": {"field": "high"}}
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "data": {"values": rows},
        "layer": [
            {"mark": "rule", "encoding": {**place, **ends}},
            {
                "mark": {"type": "point", "filled": True, "size": 60},
                "encoding": {**place, "y": {"field": "mean", **y}},
            },
            {
                "data": {"values": [{"mean": base.mean}]},
                "mark": {"type": "rule", "strokeDash": [5, 4], "color": "gray"},
                "encoding": {"y": {"field": "mean", **y}},
            },
        ],
    }
