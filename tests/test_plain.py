"""Values as JSON that every parser takes."""

from __future__ import annotations

import json
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from zpd_ray.plain import to_json


@dataclass(frozen=True)
class Row:
    stage: int | None
    theta: float


def refused(name: str) -> float:
    raise AssertionError(f"{name} is no JSON")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(VALUES)
def test_any_value_is_one_line_of_strict_json(value: object) -> None:
    line = to_json(value)
    assert "\n" not in line
    json.loads(line, parse_constant=refused)


def test_what_is_no_number_is_null_and_all_else_is_kept() -> None:
    rows = [Row(0, 1.5), Row(None, float("nan"))]
    assert json.loads(to_json({"rows": rows, 3: (float("inf"), "é\n")})) == {
        "rows": [{"stage": 0, "theta": 1.5}, {"stage": None, "theta": None}],
        "3": [None, "é\n"],
    }
