"""Columns that no field of an item takes are kept beside it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zpd_ray.config import SourceConfig
from zpd_ray.readers.shapes import Bad, normalise

PAIR = {"prompt": "2 + 2?", "response": "4"}
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).map(lambda name: f"own_{name}")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def extra(row: dict[str, Any], **source: Any) -> dict[str, Any] | None:
    item = normalise(row, SourceConfig(path="rows", **source))
    assert not isinstance(item, Bad), item
    return None if item["extra"] is None else json.loads(item["extra"])


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_what_is_not_the_item_s_is_kept_as_it_was(own: dict[str, Any]) -> None:
    kept = {name: content for name, content in own.items() if content is not None}
    assert extra(PAIR | own) == (kept or None)


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        (PAIR | {"item_id": "a", "answer": "4", "group": "sums", "choices": ["3", "4"]}, None),
        (PAIR | {"id": 7, "split": "train"}, {"id": 7, "split": "train"}),
        ({"Question": "2 + 2?", "Answer": "4", "Id": 7}, {"Id": 7}),
        (
            {"instruction": "add", "input": "2, 2", "output": "4", "text": "add 2, 2 4"},
            {"text": "add 2, 2 4"},
        ),
        (
            {"messages": [{"role": "user", "content": "2?"}, {"role": "assistant", "content": "4"}], "id": 1},
            {"id": 1},
        ),
        (
            {"instruction": "sum", "context": "2 and 2", "response": "4", "category": "qa"},
            {"category": "qa"},
        ),
        (
            PAIR | {"context": {"sentences": ["of another dataset"]}},
            {"context": {"sentences": ["of another dataset"]}},
        ),
        ({"problem": "2 + 2?", "solution": "2 + 2 = 4", "answer": "4", "level": 1}, {"level": 1}),
    ],
    ids=["nothing", "id", "upper case", "alpaca", "messages", "dolly", "a context of another kind", "math"],
)
def test_columns_that_a_shape_reads_are_not_repeated(row: dict[str, Any], kept: dict | None) -> None:
    assert extra(row) == kept


def test_what_a_mapped_column_replaces_is_kept() -> None:
    row = PAIR | {"question": "two and two?", "reward_model": {"ground_truth": "4", "style": "rule"}}
    kept = extra(row, columns={"prompt": "question", "answer": "reward_model.ground_truth"})
    assert kept == {"prompt": "2 + 2?", "reward_model": row["reward_model"]}


def test_a_mapping_changes_nothing_for_rows_without_one() -> None:
    turns = [{"role": "user", "content": "2?"}, {"role": "assistant", "content": "4"}]
    assert extra({"chat": turns, "messages": "none"}, columns={"messages": "chat"}) == {"messages": "none"}
    assert extra({"messages": turns, "own": 1}) == {"own": 1}


def test_what_json_cannot_hold_is_told() -> None:
    from datetime import date
    from decimal import Decimal

    own = {
        "on": date(2026, 1, 2),
        "price": Decimal("1.10"),
        "image": b"1234",
        "score": float("nan"),
        "odd": "\ud800",
    }
    told = {"on": "2026-01-02", "price": "1.10", "image": "4 bytes", "score": None, "odd": "\ud800"}
    assert extra(PAIR | own) == told
