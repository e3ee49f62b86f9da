"""The turns of a conversation, what they hold beside role and content, and the tools that they may call.

OpenAI's messages (with ``tool_calls`` or the older ``function_call``), and ShareGPT's turns (``tool``, or
``function_call`` and ``observation`` as LLaMA-Factory has them). What a chat template may ask of a turn is
kept as it would find it: a call's arguments as an object, each call and each definition inside ``function``.
A key whose value is null counts as absent, since Parquet fills absent keys with null.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from zpd_ray.readers.bad import BAD_MESSAGES, WRONG_TYPE, BadRowError
from zpd_ray.readers.rows import kind_of

Message = dict[str, Any]  # role and content, texts, and more: what else there is, a dict, empty or not there


class Form(NamedTuple):
    """Names of the two keys of a turn, and what its roles are called here."""

    role: str
    content: str
    roles: dict[str, str]


OPENAI = Form(
    "role",
    "content",
    {
        "system": "system",
        "developer": "system",
        "user": "user",
        "assistant": "assistant",
        "tool": "tool",
        "function": "tool",
    },
)
SHAREGPT = Form(
    "from",
    "value",
    {
        "system": "system",
        "human": "user",
        "user": "user",
        "gpt": "assistant",
        "assistant": "assistant",
        "function_call": "assistant",
        "tool": "tool",
        "observation": "tool",
    },
)
TEXTS = ("tool_call_id", "name", "reasoning_content")  # that a turn may hold beside its content
OF_RESPONSE = ("tool_calls", "reasoning_content")  # of them all what the model itself says


def messages_of(value: object, column: str, form: Form) -> list[Message]:
    """The turns in a column. Raises BadRowError for what is no list of turns."""
    if not isinstance(value, list):
        raise BadRowError(WRONG_TYPE, f"{column} is {kind_of(value)}, expected a list of turns")
    if not value:
        raise BadRowError(BAD_MESSAGES, f"{column} is an empty list")
    return [_message(turn, form) for turn in value]


def tools_of(value: object, turns: list[Message]) -> list[dict[str, Any]] | None:
    """Definitions of tools, a list or its JSON; None where there are none, or a system turn names them all.

    Such a turn (as of Hermes) has told them already. Raises BadRowError for what defines no functions.
    """
    if not value:
        return None
    tools = _parsed(value, "tools")
    if not isinstance(tools, list):
        raise BadRowError(WRONG_TYPE, f"tools is {kind_of(tools)}, expected a list of definitions")
    defined = [_in_function(tool, "a tool") for tool in tools]
    told = " ".join(turn["content"] for turn in turns if turn["role"] == "system")
    return None if all(tool["function"]["name"] in told for tool in defined) else defined


def as_json(value: Any) -> str | None:
    """Compact JSON in the order of the keys; None of what is empty. Raises BadRowError for NaN."""
    if not value:
        return None
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str, separators=(",", ":"))
    except ValueError:
        raise BadRowError(BAD_MESSAGES, "a tool call holds a number that is not finite") from None


def _message(turn: object, form: Form) -> Message:
    if not isinstance(turn, dict):
        raise BadRowError(
            WRONG_TYPE, f"a turn is {kind_of(turn)}, expected an object with {form.role} and {form.content}"
        )
    said = turn.get(form.role)
    if not isinstance(said, str) or said not in form.roles:
        raise BadRowError(BAD_MESSAGES, f"got the role {said!r}, expected one of {', '.join(form.roles)}")
    content, called = turn.get(form.content), turn.get("tool_calls") or turn.get("function_call")
    if said == "function_call":  # ShareGPT: the call is the content
        content, called = None, content
    role = form.roles[said]
    more = _more(turn, called) if called or len(turn) > 2 else {}
    if "tool_calls" in more and role != "assistant":
        raise BadRowError(BAD_MESSAGES, f"a turn of the {role}'s calls tools, expected the assistant's")
    # A template that prints what it is given would print None.
    content = "" if content is None and "tool_calls" in more else content
    if not isinstance(content, str):
        raise BadRowError(WRONG_TYPE, f"{form.content} is {kind_of(content)}, expected text")
    return {"role": role, "content": content} | ({"more": more} if more else {})


def _more(turn: dict, called: object) -> dict[str, Any]:
    """What a template may ask of a turn beside role and content; other keys are not its business."""
    more: dict[str, Any] = {"tool_calls": _calls(called)} if called else {}
    for key in TEXTS:
        text = turn.get(key)
        if text is not None and not isinstance(text, str):
            raise BadRowError(WRONG_TYPE, f"{key} is {kind_of(text)}, expected text")
        if text:
            more[key] = text
    if turn.get("weight") == 0:  # OpenAI's: a turn that is not to be learnt
        more["weight"] = 0
    return more


def _calls(value: object) -> list[dict[str, Any]]:
    value = _parsed(value, "a tool call")
    calls = [value] if isinstance(value, dict) else value
    if not isinstance(calls, list):
        raise BadRowError(BAD_MESSAGES, f"tool calls are {kind_of(calls)}, expected a list of them")
    return [_call(each) for each in calls]


def _call(value: object) -> dict[str, Any]:
    call = _in_function(value, "a tool call")
    function = call["function"]
    arguments = function.get("arguments", function.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = _parsed(arguments or "{}", f"the arguments of {function['name']}")
    if not isinstance(arguments, dict):
        raise BadRowError(
            BAD_MESSAGES, f"the arguments of {function['name']} are {kind_of(arguments)}, expected an object"
        )
    named = {"id": call["id"]} if "id" in call else {}
    return named | {"type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _in_function(value: object, what: str) -> dict[str, Any]:
    """A call or a definition with its name inside of ``function``, as templates expect it."""
    found = _without_nulls(value)
    if isinstance(found, dict):
        inner = found.get("function", found)
        if isinstance(inner, dict) and isinstance(inner.get("name"), str) and inner["name"]:
            return found if inner is not found else {"type": "function", "function": inner}
    raise BadRowError(BAD_MESSAGES, f"{what} has no function.name; got {str(value)[:200]}")


def _parsed(value: object, what: str) -> Any:
    """What a text says in JSON; everything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise BadRowError(BAD_MESSAGES, f"{what}: no JSON ({error}), got {value[:200]!r}") from None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value
