"""The plots as Vega-Lite specifications: plain values in, plain values out.

Colours are the page's CSS variables, so that one drawing serves light and dark. Each row of data has
``said``, which the drawing carries as the label of its mark.
"""

from __future__ import annotations

from typing import Any

Rows = list[dict[str, Any]]
Spec = dict[str, Any]

INK, MUTED, GRID = "var(--ink)", "var(--muted)", "var(--grid)"
MAIN, SECOND, ZONE, POOL = "var(--main)", "var(--second)", "var(--zone)", "var(--pool)"
GROUP_COLOURS = [f"var(--g{i})" for i in range(8)]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "stroke"]
SAID = {"field": "said"}
RULE: Spec = {"type": "rule", "color": MUTED, "strokeDash": [4, 4]}

CONFIG: Spec = {
    "font": "system-ui, sans-serif",
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK,
        "titleColor": INK,
        "gridColor": GRID,
        "domainColor": MUTED,
        "tickColor": MUTED,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 10,  # a reader's font may be wider than the one that was measured
        "labelLimit": 140,
    },
    "legend": {
        "labelColor": INK,
        "titleColor": INK,
        "labelFontSize": 12,
        "orient": "bottom",
        "direction": "horizontal",
        "title": None,
        "labelLimit": 140,
        "symbolSize": 80,
        "symbolOpacity": 1,
        "columnPadding": 24,  # likewise
        "rowPadding": 5,
    },
}


def chart(width: int, body: Spec) -> Spec:
    """A whole specification; ``width`` in pixels, axes included."""
    sized = {"width": width, "autosize": {"type": "fit-x", "contains": "padding"}, "padding": 4}
    return {"$schema": "https://vega.github.io/schema/vega-lite/v5.json", "config": CONFIG} | sized | body


def _axis(field: str, title: str, **more: Any) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False}} | more


def _model(models: list[str]) -> Spec:
    """x of what is known of a model: how many stages of training it has behind it."""
    axis = {"labelAngle": 0, "labelOverlap": True, "grid": False}
    return {
        "field": "model",
        "type": "ordinal",
        "sort": None,
        "title": "stages of training the model has had",
        "axis": axis,
        "scale": {"padding": 0.4, "domain": models},
    }


def _beside(models: list[str]) -> Spec:
    """The same, with room for several values beside each other."""
    return _model(models) | {"scale": {"type": "band", "paddingInner": 0.6, "domain": models}}


def ability(rows: Rows, models: list[str], width: int) -> Spec:
    """theta of each model with its band. rows: model, value, low, high. models: all there are, in order."""
    return _banded(rows, models, width, "ability theta, logits", {})


def accuracy(rows: Rows, models: list[str], width: int) -> Spec:
    """Share right on the evaluation set, with its interval; arguments as of ``ability``."""
    return _banded(rows, models, width, "accuracy on the evaluation set", {"axis": {"format": ".0%"}})


def _banded(rows: Rows, models: list[str], width: int, title: str, more: Spec) -> Spec:
    y, x = _axis("value", title, **more), _model(models)
    ends = {"y": _axis("low", title, **more), "y2": {"field": "high"}}
    layers = [
        {"mark": {"type": "area", "color": MAIN, "opacity": 0.18}, "encoding": {"x": x, **ends}},
        {"mark": {"type": "rule", "color": MAIN, "strokeWidth": 1.5}, "encoding": {"x": x, **ends}},
        {"mark": {"type": "line", "color": MAIN, "strokeWidth": 2.5}, "encoding": {"x": x, "y": y}},
        {
            "mark": {"type": "point", "color": MAIN, "fill": MAIN, "size": 70, "opacity": 1},
            "encoding": {"x": x, "y": y, "description": SAID},
        },
    ]
    return chart(width, {"height": 230, "data": {"values": rows}, "layer": layers})


def lines(rows: Rows, models: list[str], width: int, title: str) -> Spec:
    """Lines told apart by colour and shape. rows: model, series, value, low and high (may be equal)."""
    names = list(dict.fromkeys(row["series"] for row in rows))
    colour = {
        "field": "series",
        "type": "nominal",
        "scale": {"domain": names, "range": GROUP_COLOURS[: len(names)]},
        "legend": {"columns": 1 if width < 400 else 3},
    }
    shape = colour | {"scale": {"domain": names, "range": SHAPES[: len(names)]}}
    y, ends = _axis("value", title), {"y": _axis("low", title), "y2": {"field": "high"}}
    x = {"x": _beside(models), "xOffset": {"field": "series", "sort": names, "scale": {"paddingOuter": 1}}}
    layers = [
        {"mark": {"type": "rule", "opacity": 0.6}, "encoding": {**x, **ends, "color": colour}},
        {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {**x, "y": y, "color": colour}},
        {
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
            "encoding": {**x, "y": y, "color": colour, "shape": shape, "description": SAID},
        },
    ]
    return chart(width, {"height": 230, "data": {"values": rows}, "layer": layers})


def difficulty(
    rows: Rows, theta: float, zone: tuple[float, float], domain: tuple[float, float], width: int
) -> Spec:
    """The pool by b above, what was selected below; theta and the zone in both.

    rows: low, high (of b), pool, zone, replay (items), said. domain: of b, the same for all stages.
    """
    chosen = [
        {"low": row["low"], "high": row["high"], "as": name, "items": row[field], "said": row["said"]}
        for row in rows
        for name, field in (("zone's share", "zone"), ("replay", "replay"))
        if row[field]
    ]
    x = {
        "field": "low",
        "type": "quantitative",
        "bin": "binned",
        "scale": {"domain": list(domain), "nice": False},
    }
    plain = {"title": None, "axis": {"labels": False, "ticks": False, "grid": False}}
    last = {"title": "difficulty b, logits", "axis": {"grid": False, "tickCount": 6}}
    shade = _zone(theta, zone)
    whole = {
        "height": 150,
        "data": {"values": rows},
        "layer": [
            *shade[:1],
            _bars(x | plain, {"field": "pool", "type": "quantitative", "title": "items"}, {"color": POOL}),
            *shade[1:],
        ],
    }
    stacked = {
        "field": "as",
        "type": "nominal",
        "scale": {"domain": ["zone's share", "replay"], "range": [MAIN, SECOND]},
    }
    selected = {
        "height": 80,
        "data": {"values": chosen},
        "layer": [
            *shade[:1],
            _bars(
                x | last,
                {"field": "items", "type": "quantitative", "title": "selected", "axis": {"tickCount": 3}},
                {},
                {"color": stacked},
            ),
            *shade[1:],
        ],
    }
    inner = width - 62
    both = [view | {"width": inner} for view in (whole, selected)]
    spec = chart(width, {"vconcat": both, "spacing": 14, "bounds": "flush"})
    return {name: value for name, value in spec.items() if name not in ("width", "autosize")}


def _bars(x: Spec, y: Spec, mark: Spec, more: Spec | None = None) -> Spec:
    encoding = {"x": x, "x2": {"field": "high"}, "y": y, "description": SAID}
    return {"mark": {"type": "bar", "binSpacing": 0.5} | mark, "encoding": encoding | (more or {})}


def _zone(theta: float, zone: tuple[float, float]) -> list[Spec]:
    """The zone as a shade, theta as a line."""
    return [
        {
            "data": {"values": [{"low": zone[0], "high": zone[1]}]},
            "mark": {"type": "rect", "color": ZONE},
            "encoding": {
                "x": {"field": "low", "type": "quantitative"},
                "x2": {"field": "high"},
            },
        },
        {
            "data": {"values": [{"theta": theta}]},
            "mark": {"type": "rule", "color": INK, "strokeWidth": 2, "strokeDash": [5, 3]},
            "encoding": {"x": {"field": "theta", "type": "quantitative"}},
        },
    ]


def calibration(rows: Rows, width: int) -> Spec:
    """Share right against the p that was expected. rows: predicted, observed, low, high."""
    scale = {"scale": {"domain": [0, 1]}, "axis": {"format": ".0%", "tickCount": 5}}
    x = _axis("predicted", "expected p (from the NLL alone)", **scale)
    y = _axis("observed", "share right", **scale)
    ends = {"y": _axis("low", "share right", **scale), "y2": {"field": "high"}}
    layers = [
        {
            "data": {"values": [{"predicted": 0, "observed": 0}, {"predicted": 1, "observed": 1}]},
            "mark": RULE | {"type": "line"},
            "encoding": {"x": x, "y": y},
        },
        {"mark": {"type": "rule", "color": MAIN, "strokeWidth": 2}, "encoding": {"x": x, **ends}},
        {
            "mark": {"type": "point", "color": MAIN, "fill": MAIN, "size": 60, "opacity": 1},
            "encoding": {"x": x, "y": y, "description": SAID},
        },
    ]
    return chart(width, {"height": 250, "data": {"values": rows}, "layer": layers})


def shifts(rows: Rows, width: int) -> Spec:
    """By how much parts of the pool are harder than predicted. rows: part, value, low, high."""
    title = "harder than predicted by, logits"
    y = {"field": "part", "type": "nominal", "title": None, "sort": None}
    x, ends = _axis("value", title), {"x": _axis("low", title), "x2": {"field": "high"}}
    layers = [
        {"data": {"values": [{"zero": 0}]}, "mark": RULE, "encoding": {"x": _axis("zero", title)}},
        {"mark": {"type": "rule", "color": MAIN, "strokeWidth": 2}, "encoding": {"y": y, **ends}},
        {
            "mark": {"type": "point", "color": MAIN, "fill": MAIN, "size": 60, "opacity": 1},
            "encoding": {"y": y, "x": x, "description": SAID},
        },
    ]
    return chart(width, {"height": {"step": 34}, "data": {"values": rows}, "layer": layers})


def cost(rows: Rows, width: int) -> Spec:
    """Seconds by stage and purpose, as bars. rows: stage, purpose, seconds."""
    colour = {
        "field": "purpose",
        "type": "nominal",
        "scale": {"domain": ["selecting", "training"], "range": [MAIN, SECOND]},
    }
    encoding = {
        "y": {"field": "stage", "type": "ordinal", "title": "stage", "sort": None},
        "x": {"field": "seconds", "type": "quantitative", "title": "seconds"},
        "color": colour,
        "description": SAID,
    }
    body = {"height": {"step": 34}, "data": {"values": rows}, "mark": {"type": "bar"}, "encoding": encoding}
    return chart(width, body)
