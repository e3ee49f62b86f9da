"""Rows that are read as prompts and nothing else, because the config says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.readers.test_shapes import CHAT, GPT, user
from zpd_ray import graders
from zpd_ray.config import SourceConfig
from zpd_ray.readers.blocks import blocks
from zpd_ray.readers.columns import recognised_as
from zpd_ray.readers.found import find_items
from zpd_ray.readers.rows import RawRow
from zpd_ray.readers.shapes import Bad, normalise
from zpd_ray.readers.sources import SourceFile, expand


def source(
    shape: str = "auto", path: str = "x", reference: str | None = "prompt", **columns: str
) -> SourceConfig:
    values = {"path": path, "shape": shape, "columns": columns, "reference": reference}
    return SourceConfig.model_validate(values)


@pytest.mark.parametrize(
    ("value", "shape", "messages", "answer", "extra"),
    [
        ({"prompt": "q"}, "prompt", user("q"), None, None),
        ({"Question": "q", "level": 3}, "prompt", user("q"), None, {"level": 3}),
        ({"question": "q", "answer": 5}, "prompt", user("q"), "5", None),
        ({"problem": "q", "solution": "s", "answer": "g"}, "prompt", user("q"), "g", {"solution": "s"}),
        ({"prompt": "q", "response": "r", "completion": None}, "prompt", user("q"), None, {"response": "r"}),
        ({"prompt": [*CHAT, *user("then?")]}, "prompt", [*CHAT, *user("then?")], None, None),
        ({"prompt": "q", "context": "c"}, "prompt", user("q\n\nc"), None, None),
        ({"prompt": "q", "system": "s"}, "prompt", CHAT[:2], None, None),
        ({"instruction": "q", "input": "i"}, "alpaca", user("q\n\ni"), None, None),
        ({"instruction": "q", "output": "r"}, "alpaca", user("q"), None, {"output": "r"}),
        ({"messages": CHAT[:2], "response": "r"}, "messages", CHAT[:2], None, {"response": "r"}),
        ({"conversations": GPT[:2]}, "sharegpt", CHAT[:2], None, None),
    ],
)
def test_known_shapes(
    value: dict[str, Any], shape: str, messages: list[Any], answer: str | None, extra: dict[str, Any] | None
) -> None:
    assert recognised_as(value, source()) == shape
    item = normalise(value, source())
    assert isinstance(item, dict)
    assert (item["messages"], item["response"], item["answer"]) == (messages, None, answer)
    assert json.loads(item["extra"] or "null") == extra
    told = {"prompt": "prompt_response"}.get(shape, shape)
    assert normalise(value, source(told)) == item


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"response": "r"}, "no prompt among the columns with a value; got 'response'"),
        ({"prompt": None, "answer": "5"}, "no prompt among the columns"),
        ({"prompt": " "}, "prompt is blank"),
        ({"messages": CHAT}, "the last turn of messages is the assistant's, expected the user's"),
        ({"conversations": GPT}, "the last turn of conversations is the assistant's"),
        ({"messages": [{"role": "tool", "content": "5"}]}, "no user turn with content"),
    ],
)
def test_what_is_no_prompt(value: dict[str, Any], words: str) -> None:
    found = normalise(value, source())
    assert isinstance(found, Bad)
    assert words in found.detail


def test_mapped_columns() -> None:
    row = {"text": "q", "gold": {"value": 5}, "reply": "r", "prompt": "another"}
    item = normalise(row, source(prompt="text", answer="gold.value"))
    assert isinstance(item, dict)
    assert (item["messages"], item["response"], item["answer"]) == (user("q"), None, "5")
    assert json.loads(item["extra"]) == {"gold": {"value": 5}, "reply": "r", "prompt": "another"}


def test_without_the_word_a_row_without_a_response_is_bad_and_told_the_way_out() -> None:
    for value in ({"prompt": "q"}, {"prompt": "q", "response": None}, {"messages": None, "question": "q"}):
        found = normalise(value, source(reference=None))
        assert isinstance(found, Bad)
        assert found.detail.endswith(
            'where rows hold prompts and nothing else, say so with reference = "prompt"'
        )
    found = normalise({"response": "r"}, source(reference=None))
    assert isinstance(found, Bad)
    assert "nothing else" not in found.detail


def file_of(directory: Path, rows: list[dict[str, Any]]) -> SourceFile:
    path = directory / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (file,) = expand(str(path), "auto")
    return file


def grade(completion: str) -> bool:
    return bool(completion)


def test_a_pool_of_some_rows_with_a_response_is_read_in_one_way(tmp_path: Path) -> None:
    """All of it as prompts alone, or those without a response put aside: never some of each."""
    rows: list[dict[str, Any]] = [
        {"prompt": f"q{i}"} | ({"response": "r"} if i % 2 else {}) for i in range(40)
    ]
    file, grader = file_of(tmp_path, rows), graders.load(f"{__name__}:grade")
    (block,) = blocks(file)
    alone = find_items(block, file.path, source(), grader)
    assert alone.items.num_rows == 40
    assert alone.items["response"].null_count == 40
    assert alone.bad.num_rows == 0
    paired = find_items(block, file.path, source(reference=None), grader)
    assert paired.items["source_row"].to_pylist() == list(range(1, 40, 2))
    assert paired.items["response"].to_pylist() == ["r"] * 20
    assert paired.bad["source_row"].to_pylist() == list(range(0, 40, 2))
    assert set(paired.bad["reason"].to_pylist()) == {"unknown shape"}
    ids = [set(found.items["item_id"].to_pylist()) for found in (alone, paired)]
    assert len(ids[0]) == 40
    assert not ids[0] & ids[1]


def test_equal_prompts_are_duplicates_whatever_their_responses(tmp_path: Path) -> None:
    from zpd_ray.readers.items import to_items

    grader = graders.load(f"{__name__}:grade")
    rows = [{"prompt": "q", "response": "r"}, {"prompt": "q", "response": "s"}, {"question": "q"}]
    items, _ = to_items([RawRow(i, row) for i, row in enumerate(rows)], "f", source(), grader)
    assert len(set(items["content_hash"].to_pylist())) == 1
    assert len(set(items["item_id"].to_pylist())) == 1


def test_a_grader_that_compares_puts_rows_without_an_answer_aside(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"q{i}"} | ({"answer": i} if i % 2 else {}) for i in range(10)]
    file = file_of(tmp_path, rows)
    (block,) = blocks(file)
    found = find_items(block, file.path, source(), graders.load("numeric"))
    assert found.items["answer"].to_pylist() == ["1", "3", "5", "7", "9"]
    assert found.bad["reason"].to_pylist() == ["missing answer"] * 5
