"""Conversations with tools as datasets have them, and what is not taken for one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.readers.test_shapes import source, user
from zpd_ray.graders import load
from zpd_ray.readers import shapes
from zpd_ray.readers.items import to_items
from zpd_ray.readers.rows import RawRow
from zpd_ray.readers.shapes import Bad, normalise

ADD = {"name": "add", "arguments": {"b": 2, "a": 1}}
TEXT = '{"b": 2, "a": 1}'
NULLS = ADD | {"arguments": {"b": 2, "c": None, "a": 1}}
CALLS = {"tool_calls": [{"type": "function", "function": ADD}]}
DEFINED = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
ASSISTANT: dict[str, Any] = {"role": "assistant", "content": None}
LAST = {"role": "assistant", "content": "3"}


def item_of(value: dict[str, Any], **columns: str) -> dict[str, Any]:
    item = normalise(value, source(**columns))
    assert isinstance(item, dict)
    return item


def more_of(turn: dict[str, Any]) -> dict[str, Any]:
    """What the second of three turns holds beside its content."""
    told = item_of({"messages": [*user("q"), turn, {"role": "tool", "content": "3"}, LAST]})["messages"][1]
    assert (told["role"], told["content"]) == ("assistant", "")
    return dict(json.loads(told["more"]))


@pytest.mark.parametrize(
    "turn",
    [
        ASSISTANT | {"tool_calls": [{"type": "function", "function": ADD}]},
        ASSISTANT
        | {"tool_calls": [{"type": "function", "function": ADD | {"arguments": '{"b": 2, "a": 1}'}}]},
        ASSISTANT | {"tool_calls": [ADD], "content": ""},
        ASSISTANT | {"tool_calls": json.dumps([{"type": "function", "function": ADD}])},
        ASSISTANT | {"function_call": {"name": "add", "arguments": TEXT}},
        # as Parquet has it: absent keys are null
        ASSISTANT
        | {
            "tool_call_id": None,
            "tool_calls": [
                {"id": None, "function": {"name": "add", "arguments": ADD["arguments"] | {"c": None}}}
            ],
        },
    ],
)
def test_calls_of_tools_in_every_spelling_are_one(turn: dict[str, Any]) -> None:
    more = more_of(turn)
    assert more == CALLS
    assert list(more["tool_calls"][0]["function"]["arguments"]) == ["b", "a"]  # in their own order


def test_sharegpt_with_calls_and_observations() -> None:
    turns = [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": json.dumps(ADD)},
        {"from": "observation", "value": "3"},
        {"from": "gpt", "value": "It is 3."},
    ]
    item = item_of({"conversations": turns, "tools": json.dumps([DEFINED[0]["function"]])})
    assert [turn["role"] for turn in item["messages"]] == ["user", "assistant", "tool"]
    assert json.loads(item["messages"][1]["more"]) == CALLS
    assert json.loads(item["tools"]) == DEFINED
    assert (item["response"], item["extra"]) == ("It is 3.", None)
    assert [
        turn["role"] for turn in item_of({"conversations": [turns[0], turns[2], turns[3]]})["messages"]
    ] == [
        "user",
        "tool",
    ]


def test_a_last_turn_may_be_a_call_and_what_the_model_does_not_say_is_left_out() -> None:
    last = ASSISTANT | CALLS | {"reasoning_content": "Hm.", "name": "bot", "weight": 1}
    item = item_of({"messages": [*user("q"), last]})
    assert item["response"] == ""
    assert json.loads(item["response_more"]) == CALLS | {"reasoning_content": "Hm."}
    assert item_of({"messages": [*user("q"), LAST | {"name": "bot", "id": 3}]})["response_more"] is None


def test_tools_that_a_system_turn_names_are_not_told_twice() -> None:
    system = {"role": "system", "content": 'You have <tools>{"name": "add"}</tools>'}
    chat = [system, *user("q"), LAST]
    assert item_of({"messages": chat, "tools": DEFINED})["tools"] is None
    other = [*DEFINED, {"type": "function", "function": {"name": "divide"}}]
    assert json.loads(item_of({"messages": chat, "tools": other})["tools"]) == other


def test_a_column_tools_beside_a_text_is_a_column_like_any_other_unless_it_is_mapped() -> None:
    row = {"prompt": "q", "response": "r", "tools": json.dumps(DEFINED)}
    assert item_of(row)["tools"] is None
    assert json.loads(item_of(row)["extra"])["tools"] == row["tools"]
    mapped = item_of({"prompt": "q", "response": "r", "functions": DEFINED}, tools="functions")
    assert json.loads(mapped["tools"]) == DEFINED
    assert mapped["extra"] is None
    assert (
        json.loads(item_of({"prompt": user("q"), "completion": [LAST], "tools": DEFINED})["tools"]) == DEFINED
    )


def calling(calls: Any) -> dict[str, Any]:
    return {"messages": [*user("q"), ASSISTANT | {"tool_calls": calls}]}


def said_to(*turns: dict[str, Any], **columns: Any) -> dict[str, Any]:
    return {"messages": [*user("q"), *turns], **columns}


CALLED = {"from": "function_call", "value": "add"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (calling([{"id": 1}]), "a tool call has no function.name"),
        (calling("add(1, 2)"), "a tool call: no JSON"),
        (calling(3), "tool calls are a number"),
        (calling([ADD | {"arguments": "1, 2"}]), "the arguments of add: no JSON"),
        (calling([ADD | {"arguments": [1]}]), "the arguments of add are"),
        (calling([ADD | {"arguments": {"a": float("nan")}}]), "a number that is not finite"),
        ({"messages": [user("q")[0] | CALLS, LAST]}, "a turn of the user's calls tools"),
        (said_to(LAST | {"weight": 0}), "the last turn has weight 0"),
        (said_to(LAST | {"reasoning_content": 3}), "reasoning_content is a number"),
        (said_to(LAST, {"role": "tool", "content": "3"}), "the last turn is the tool's"),
        (said_to(LAST, tools="a hammer"), "tools: no JSON"),
        (said_to(LAST, tools={"add": 1}), "tools is an object, expected a list"),
        (said_to(LAST, tools=[{"type": "web_search"}]), "a tool has no function.name"),
        ({"conversations": [{"from": "human", "value": "q"}, CALLED]}, "a tool call: no JSON"),
    ],
)
def test_what_is_no_call_and_no_tool_is_told(value: dict[str, Any], words: str) -> None:
    bad = normalise(value, source())
    assert isinstance(bad, Bad)
    assert words in bad.detail
    assert bad.reason in (shapes.BAD_MESSAGES, shapes.WRONG_TYPE)


def test_nesting_that_python_cannot_follow_is_told() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    bad = normalise(
        {"messages": [*user("q"), ASSISTANT | {"tool_calls": [ADD | {"arguments": deep}]}]}, source()
    )
    assert isinstance(bad, Bad)
    assert "nested too deeply" in bad.detail


def test_ids_cover_calls_and_tools() -> None:
    chats = [
        {"messages": [*user("q"), ASSISTANT | CALLS, LAST]},
        {"messages": [*user("q"), ASSISTANT | CALLS, LAST], "tools": DEFINED},
        {"messages": [*user("q"), LAST], "tools": DEFINED},
        {"messages": [*user("q"), LAST]},
        {"messages": [*user("q"), ASSISTANT | CALLS]},
        {"messages": [*user("q"), ASSISTANT | {"tool_calls": [ADD | {"name": "sum"}]}]},
    ]
    rows = [RawRow(number, chat) for number, chat in enumerate([*chats, *chats])]
    items, bad = to_items(rows, "f", source(), load("greedy_match"))
    assert bad.num_rows == 0
    for column in ("item_id", "content_hash"):
        ids = items[column].to_pylist()
        assert ids[:6] == ids[6:]
        assert len(set(ids)) == 6
    assert len(set(items["prompt_key"].to_pylist()[2:6])) == 1  # one question, with tools or without
