"""Shapes of rows: recognised, mapped, or refused with one of a few words."""

import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zpd_ray.config import SourceConfig
from zpd_ray.errors import ZpdError
from zpd_ray.readers import columns, shapes
from zpd_ray.readers.columns import check_columns, recognise
from zpd_ray.readers.shapes import Bad, normalise


def source(shape: str = "auto", **columns: str) -> SourceConfig:
    return SourceConfig(path="x", shape=shape, columns=columns)


def user(content: str) -> list[dict]:
    return [{"role": "user", "content": content}]


CHAT = [{"role": "system", "content": "s"}, *user("q"), {"role": "assistant", "content": "r"}]
GPT = [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "r"}]
TOOL = {"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}


@pytest.mark.parametrize(
    ("value", "shape", "messages", "answer"),
    [
        ({"prompt": "q", "response": "r"}, "prompt_response", user("q"), None),
        ({"prompt": "q", "completion": "r", "answer": 5}, "prompt_response", user("q"), "5"),
        ({"input": "q", "output": "r"}, "prompt_response", user("q"), None),
        ({"question": "q", "response": "r", "answer": "g"}, "prompt_response", user("q"), "g"),
        ({"question": "q", "answer": "r"}, "question_answer", user("q"), "r"),
        ({"instruction": "q", "output": "r"}, "alpaca", user("q"), None),
        ({"instruction": "q", "input": "", "output": "r"}, "alpaca", user("q"), None),
        ({"instruction": "q", "input": "i", "output": "r"}, "alpaca", user("q\n\ni"), None),
        ({"messages": CHAT, "answer": "g"}, "messages", CHAT[:2], "g"),
        ({"messages": CHAT[:2], "response": "r"}, "messages", CHAT[:2], None),
        ({"messages": None, "prompt": "q", "response": "r"}, "prompt_response", user("q"), None),
        ({"conversations": GPT}, "sharegpt", CHAT[:2], None),
    ],
)
def test_known_shapes(value: dict, shape: str, messages: list[dict], answer: str | None) -> None:
    assert recognise(value) == shape
    for given_shape in ("auto", shape):
        item = normalise(value, source(given_shape))
        assert isinstance(item, dict)
        assert (item["messages"], item["response"], item["answer"]) == (messages, "r", answer)
    check_columns(value, source())


def test_several_turns_keep_all_but_the_last_as_prompt() -> None:
    chat = [*CHAT, *user("again"), {"role": "assistant", "content": "last"}]
    item = normalise({"messages": chat}, source())
    assert isinstance(item, dict)
    assert (item["messages"], item["response"]) == (chat[:-1], "last")


@pytest.mark.parametrize(
    ("value", "columns", "expected"),
    [
        (
            {"problem": "q", "solution": "r", "gold": 7},
            {"prompt": "problem", "response": "solution"},
            ("q", "r", None),
        ),
        ({"q": "q", "s": "r", "g": 7}, {"prompt": "q", "response": "s", "answer": "g"}, ("q", "r", "7")),
        ({"question": "q", "answer": "r", "gold": 7}, {"answer": "gold"}, ("q", "r", "7")),
        ({"question": "q", "answer": "r", "rephrased": "p"}, {"prompt": "rephrased"}, ("p", "r", "r")),
        ({"question": "q", "answer": "a", "cot": "r"}, {"response": "cot"}, ("q", "r", "a")),
        ({"prompt": "q", "response": "a", "better": "r"}, {"response": "better"}, ("q", "r", None)),
        (
            {"messages": CHAT, "text": "q", "label": "r"},
            {"prompt": "text", "response": "label"},
            ("q", "r", None),
        ),
    ],
)
def test_mapped_columns_go_before_the_shape(value: dict, columns: dict, expected: tuple) -> None:
    check_columns(value, source(**columns))
    item = normalise(value, source(**columns))
    assert isinstance(item, dict)
    assert (item["messages"][-1]["content"], item["response"], item["answer"]) == expected


def test_a_mapped_conversation_is_the_prompt_of_a_mapped_response() -> None:
    item = normalise({"chat": CHAT[:2], "label": "r"}, source(messages="chat", response="label"))
    assert isinstance(item, dict)
    assert (item["messages"], item["response"]) == (CHAT[:2], "r")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({}, shapes.UNKNOWN_SHAPE),
        ({"text": "x"}, shapes.UNKNOWN_SHAPE),
        ({"prompt": "q", "response": None}, shapes.UNKNOWN_SHAPE),
        ({"prompt": "q", "response": " \n"}, shapes.EMPTY_RESPONSE),
        ({"prompt": "", "response": "r"}, shapes.EMPTY_PROMPT),
        ({"prompt": ["q"], "response": "r"}, shapes.WRONG_TYPE),
        ({"prompt": "q", "response": 5}, shapes.WRONG_TYPE),
        ({"question": "q", "answer": 5}, shapes.WRONG_TYPE),
        ({"prompt": "q", "response": "r", "answer": ["a"]}, shapes.WRONG_TYPE),
        ({"prompt": "q", "response": "r", "answer": True}, shapes.WRONG_TYPE),
        ({"prompt": "q", "response": "r", "answer": float("inf")}, shapes.WRONG_TYPE),
        ({"prompt": "q", "response": "r", "group": {}}, shapes.WRONG_TYPE),
        ({"prompt": "q", "response": "r", "choices": "AB"}, shapes.WRONG_TYPE),
        ({"prompt": "q", "response": "r", "choices": [None]}, shapes.WRONG_TYPE),
        ({"prompt": "q", "response": "r", "choices": {"A": "x", "C": "y"}}, shapes.WRONG_TYPE),
        ({"instruction": "q", "input": 3, "output": "r"}, shapes.WRONG_TYPE),
        ({"messages": "q"}, shapes.WRONG_TYPE),
        ({"messages": ["q"]}, shapes.WRONG_TYPE),
        ({"messages": [*user("q"), {"role": "assistant", "content": None}]}, shapes.WRONG_TYPE),
        ({"messages": []}, shapes.BAD_MESSAGES),
        ({"messages": user("q")}, shapes.BAD_MESSAGES),
        ({"messages": [*user("q"), {"role": "critic", "content": "x"}, CHAT[2]]}, shapes.BAD_MESSAGES),
        ({"messages": [*user("q"), TOOL, CHAT[2]]}, shapes.BAD_MESSAGES),
        ({"messages": [*user("q"), {"role": 5, "content": "r"}]}, shapes.BAD_MESSAGES),
        ({"messages": [*user("q"), {"role": [], "content": "r"}]}, shapes.BAD_MESSAGES),
        ({"messages": CHAT, "response": "r"}, shapes.BAD_MESSAGES),
        ({"messages": CHAT[2:]}, shapes.EMPTY_PROMPT),
        ({"messages": [CHAT[0], CHAT[2]]}, shapes.EMPTY_PROMPT),
        ({"messages": [*user("q"), {"role": "assistant", "content": ""}]}, shapes.EMPTY_RESPONSE),
        ({"conversations": [{"from": "bing", "value": "q"}]}, shapes.BAD_MESSAGES),
    ],
)
def test_bad_rows_get_a_reason(value: dict, reason: str) -> None:
    bad = normalise(value, source())
    assert isinstance(bad, Bad)
    assert bad.reason == reason
    assert bad.detail


def test_a_column_missing_from_a_row_or_from_the_source() -> None:
    mapped = source(prompt="problem", answer="gold")
    bad = normalise({"problem": "q", "response": "r"}, mapped)
    assert isinstance(bad, Bad)
    assert bad.reason == shapes.MISSING_COLUMN
    with pytest.raises(ZpdError, match=r"not there: answer = 'gold'; the columns are 'problem', 'response'"):
        check_columns(["problem", "response"], mapped)
    with pytest.raises(ZpdError, match="none of the known shapes"):
        check_columns(["a", "b"], source())
    with pytest.raises(ZpdError, match="map one"):
        check_columns(["a", "b"], source(prompt="a", messages="b"))
    for shape in ("question_answer", "messages", "alpaca", "sharegpt", "prompt_response"):
        assert isinstance(normalise({"a": "b"}, source(shape)), Bad)


def test_optional_fields() -> None:
    row = {"prompt": "q", "response": "r"}

    def item(**more: object) -> dict:
        found = normalise({**row, **more}, source())
        assert isinstance(found, dict)
        return found

    assert item()["item_id"] is item()["answer"] is item()["choices"] is item()["group"] is None
    assert item(item_id=7)["item_id"] == "7"
    assert item(item_id=" ")["item_id"] is None
    assert item(answer=2.5)["answer"] == "2.5"
    assert item(answer=Decimal("2.50"))["answer"] == "2.50"
    assert item(answer=float("nan"))["answer"] is None
    assert item(group=3)["group"] == "3"
    assert item(choices=["x", 5])["choices"] == ["x", "5"]
    assert item(choices={"B": "y", "a": "x", "C": None})["choices"] == ["x", "y"]
    assert item(choices=[])["choices"] is None


REASONS = {shapes.UNKNOWN_SHAPE, shapes.MISSING_COLUMN, shapes.WRONG_TYPE, shapes.EMPTY_PROMPT}
REASONS |= {shapes.EMPTY_RESPONSE, shapes.BAD_MESSAGES}
names = st.sampled_from(
    [*columns.PROMPTS, *columns.RESPONSES, "messages", "conversations", "choices", "group", "x"]
)
contents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "A"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(names, contents), st.sampled_from(["auto", "messages", "alpaca", "question_answer"]))
def test_any_row_is_an_item_or_bad(value: dict, shape: str) -> None:
    item = normalise(value, source(shape))
    if isinstance(item, Bad):
        assert item.reason in REASONS
    else:
        assert item["response"].strip()
        assert all(isinstance(turn["content"], str) for turn in item["messages"])


TEXT = {"question": "Why?", "context": "Because.", "answer": "So."}


@pytest.mark.parametrize(
    ("row", "columns", "prompt", "response"),
    [
        ({"Question": "Why?", "Answer": "So."}, {"prompt": "Question", "response": "Answer"}, "Why?", "So."),
        (TEXT, {}, "Why?\n\nBecause.", "So."),
        (TEXT, {"prompt": "question", "response": "context"}, "Why?", "Because."),
        (TEXT, {"prompt": "context", "response": "answer"}, "Because.", "So."),
        (TEXT, {"prompt": "question", "response": "answer", "group": "context"}, "Why?", "So."),
        (TEXT | {"context": {"title": "a"}}, {}, "Why?", "So."),
        ({"prompt": "Why?", "response": "So.", "system": 7}, {}, "Why?", "So."),
        ({"question": "Why?", "solution": "Long.", "answer": "So."}, {}, "Why?", "So."),
        ({"problem": "Why?", "solution": "Long.", "answer": "So."}, {}, "Why?", "Long."),
        ({"input": "Why?", "query": "other", "output": "So."}, {}, "Why?", "So."),
        (
            {
                "prompt": "Why?",
                "chosen": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}],
            },
            {"response": "chosen"},
            "Why?",
            "So.",
        ),
        (
            {"prompt": "Why?", "response": "So.", "r": {"g": None}},
            {"answer": "r.g"},
            "Why?",
            "So.",
        ),
    ],
)
def test_what_other_columns_hold_is_not_taken_for_what_it_is_not(
    row: dict[str, Any], columns: dict[str, str], prompt: str, response: str
) -> None:
    source = SourceConfig(path="x", columns=columns)
    check_columns(row, source)
    item = normalise(row, source)
    assert isinstance(item, dict), item
    assert [turn["content"] for turn in item["messages"]] == [prompt]
    assert item["response"] == response


@pytest.mark.parametrize("last", [{"role": "assistant", "content": "So."}, {"role": "user", "content": " "}])
def test_a_list_of_messages_that_is_no_prompt_is_a_bad_row(last: dict[str, str]) -> None:
    row = {"prompt": [{"role": "user", "content": "Why?"}, last], "response": "So."}
    assert isinstance(normalise(row, SourceConfig(path="x")), Bad)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (5, "a number"),
        (0.5, "a number"),
        (Decimal(1), "a number"),
        (True, "true or false"),
        ({}, "an object"),
    ],
)
def test_a_wrong_type_is_told_in_words_of_json(content: Any, kind: str) -> None:
    assert normalise({"prompt": content, "response": "r"}, source()) == Bad(
        shapes.WRONG_TYPE, f"prompt is {kind}, expected text"
    )


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.lists(st.none()) | st.just({}))
def test_no_detail_of_json_names_a_type_of_python(content: Any) -> None:
    for column in ("prompt", "response", "messages", "conversations", "answer", "choices", "group"):
        found = normalise({"prompt": "p", "response": "r", column: content}, source())
        if isinstance(found, Bad):
            assert not re.search(r"\b(int|float|bool|dict|NoneType|str)\b", found.detail)
