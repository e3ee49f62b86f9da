"""What an item is in a row: the shapes that are recognised, and the columns that the config maps.

Shapes, first match wins: ``messages`` (OpenAI), ``conversations`` (ShareGPT), ``instruction`` + ``output``
(Alpaca, with an optional ``input``), else a prompt column and a response column, texts or lists of messages
(TRL). An item's ``item_id``, ``answer``, ``choices`` and ``group`` come from columns of these names unless
mapped. Names count whatever their case; a mapped column may lie inside another one: ``reward.ground_truth``.
With ``reference = "prompt"`` the same columns hold the prompt, and a response that is there is not read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any, Literal, NamedTuple

from zpd_ray.config import SourceConfig
from zpd_ray.readers.bad import (
    BAD_MESSAGES,
    EMPTY_PROMPT,
    EMPTY_RESPONSE,
    MISSING_COLUMN,
    UNKNOWN_SHAPE,
    WRONG_TYPE,
    Bad,
    BadRowError,
)
from zpd_ray.readers.columns import (
    CONTEXTS,
    SYSTEMS,
    in_lower_case,
    inside,
    is_there,
    listed,
    only_a_prompt,
    pair_of,
    shape_of,
    takes_tools,
    view_of,
)
from zpd_ray.readers.extra import left_over
from zpd_ray.readers.rows import kind_of
from zpd_ray.readers.turns import (
    OF_RESPONSE,
    OPENAI,
    SHAREGPT,
    Form,
    Message,
    as_json,
    messages_of,
    tools_of,
)


class _Parts(NamedTuple):
    messages: list[Message]
    response: str | None  # None: the row is read as a prompt alone
    answer: str | None = None  # where the shape itself says what the gold answer is
    more: dict[str, Any] | None = None  # what the last turn holds beside the response


def normalise(value: dict, source: SourceConfig) -> dict[str, Any] | Bad:
    """The item in a row, or why there is none.

    An item is a dict with ``item_id`` (str or None), ``messages`` (the prompt: role and content of each, and
    ``more``, a JSON object, where a turn holds more), ``response`` (str; None with ``reference = "prompt"``),
    ``response_more`` (likewise, or None), ``tools`` (a JSON list, or None), ``answer`` (str or None),
    ``choices`` (list of str or None), ``group`` (str or None), ``extra`` (what else the row holds as a JSON
    object, or None).
    """
    try:
        return _item(value, source)
    except BadRowError as row:
        return row.bad
    except RecursionError:
        return Bad(WRONG_TYPE, "what it holds is nested too deeply")


def _item(row: dict, source: SourceConfig) -> dict[str, Any]:
    value = in_lower_case(row, source.columns.values())
    if source.columns:
        for field, column in source.columns.items():
            if not is_there(value, column):
                raise BadRowError(
                    MISSING_COLUMN, f"{column!r}, mapped as {field}, is not there; got {listed(value)}"
                )
    view = view_of(value, source)
    shape = shape_of(view, source)
    if shape is None:
        raise _unknown(value, view, source)
    parts = _alone(_ALONE[shape](view)) if source.prompts_alone else _SHAPES[shape](view)
    answer = parts.answer
    if "answer" in source.columns or answer is None:
        answer = _scalar(value, "answer", source)
    tools = takes_tools(view, shape, source) and inside(value, source.columns.get("tools", "tools"))
    return {
        "item_id": _scalar(value, "item_id", source),
        "messages": [
            turn | {"more": as_json(turn["more"])} if "more" in turn else turn for turn in parts.messages
        ],
        "response": parts.response,
        "response_more": as_json(parts.more),
        "tools": as_json(tools_of(tools or None, parts.messages)),
        "answer": answer,
        "choices": _choices(inside(value, source.columns.get("choices", "choices"))),
        "group": _scalar(value, "group", source),
        "extra": left_over(row, view, shape, source),
    }


def _unknown(value: dict, view: dict, source: SourceConfig) -> BadRowError:
    if source.prompts_alone:
        told = f"no prompt among the columns with a value; got {listed(value)}"
    else:
        told = (
            f"no prompt and response among the columns with a value; got {listed(view)}{only_a_prompt(view)}"
        )
    return BadRowError(UNKNOWN_SHAPE, told)


def _pair(view: dict) -> _Parts:
    prompt, response = pair_of(view)
    if prompt is None or response is None:
        raise BadRowError(MISSING_COLUMN, f"expected a prompt and a response; got {listed(view)}")
    if isinstance(view[response], list):
        answer = messages_of(view[response], response, OPENAI)
        whole = answer[0]["role"] != "assistant"  # it begins with the prompt
        return _split(answer if whole else [*_prompt(view[prompt], prompt), *answer])
    turns = _with_context(_prompt(view[prompt], prompt), view)
    return _Parts(turns, _response(view[response], response))


def _with_context(turns: list[Message], view: dict) -> list[Message]:
    """What other columns add to a prompt that is one text: a context (Dolly), a system prompt (OpenOrca)."""
    context, system = (_added(names, view) for names in (CONTEXTS, SYSTEMS))
    if len(turns) == 1 and context:
        turns = _user(f"{turns[0]['content']}\n\n{context}")
    if turns[0]["role"] != "system" and system:
        turns = [{"role": "system", "content": system}, *turns]
    return turns


def _added(names: tuple[str, ...], view: dict) -> str:
    """The first of these columns that holds text; others are about something else."""
    texts = (view.get(name) for name in names)
    return next((text for text in texts if isinstance(text, str) and text.strip()), "")


def _prompt(content: object, column: str) -> list[Message]:
    """A text is one turn of the user's; TRL and verl have lists of messages, too."""
    if isinstance(content, list):
        return _asking(messages_of(content, column, OPENAI), column)
    return _user(_text(content, column, EMPTY_PROMPT))


def _asking(turns: list[Message], column: str) -> list[Message]:
    """Turns that end with one that is to be answered."""
    if turns[-1]["role"] not in ("user", "tool"):
        raise BadRowError(
            BAD_MESSAGES, f"the last turn of {column} is the {turns[-1]['role']}'s, expected the user's"
        )
    _text(turns[-1]["content"], f"the last turn of {column}", EMPTY_PROMPT)
    return turns


def _question_answer(view: dict) -> _Parts:
    """The answer is the reference response, and the gold answer too: a grader finds its last number in it."""
    if "question" not in view or "answer" not in view:
        return _pair(view)
    response = _response(view["answer"], "answer")
    turns = _with_context(_user(_text(view["question"], "question", EMPTY_PROMPT)), view)
    return _Parts(turns, response, response)


def _alpaca(view: dict) -> _Parts:
    if "instruction" not in view:
        return _pair(view)
    return _Parts(_instruction(view), _response(view.get("output"), "output"))


def _instruction(view: dict) -> list[Message]:
    prompt = _text(view.get("instruction"), "instruction", EMPTY_PROMPT)
    context = view.get("input")
    if context is not None and _string(context, "input").strip():
        prompt = f"{prompt}\n\n{context}"
    return _with_context(_user(prompt), view)


def _openai(view: dict) -> _Parts:
    messages = messages_of(view.get("messages"), "messages", OPENAI)
    if view.get("response") is None:
        return _split(messages)
    if messages[-1]["role"] not in ("user", "tool"):
        raise BadRowError(
            BAD_MESSAGES, f"with a response apart, the last turn is the user's; got {messages[-1]['role']}"
        )
    return _Parts(messages, _response(view["response"], "response"))


def _sharegpt(view: dict) -> _Parts:
    return _split(messages_of(view.get("conversations"), "conversations", SHAREGPT))


_SHAPES: dict[str, Callable[[dict], _Parts]] = {
    "messages": _openai,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "prompt_response": _pair,
    "question_answer": _question_answer,
}


def _alone(turns: list[Message]) -> _Parts:
    """A prompt and nothing else; its NLL is over what the user says (``engines.asked``)."""
    if not any(turn["role"] == "user" and turn["content"].strip() for turn in turns):
        raise BadRowError(EMPTY_PROMPT, "no user turn with content")
    return _Parts(turns, None)


def _prompt_alone(view: dict) -> list[Message]:
    prompt, _ = pair_of(view)
    if prompt is None:
        raise BadRowError(MISSING_COLUMN, f"expected a prompt; got {listed(view)}")
    return _with_context(_prompt(view[prompt], prompt), view)


def _turns_alone(column: str, form: Form, view: dict) -> list[Message]:
    return _asking(messages_of(view.get(column), column, form), column)


_ALONE: dict[str, Callable[[dict], list[Message]]] = {
    "messages": partial(_turns_alone, "messages", OPENAI),
    "sharegpt": partial(_turns_alone, "conversations", SHAREGPT),
    "alpaca": _instruction,
    "prompt": _prompt_alone,
}


def _split(messages: list[Message]) -> _Parts:
    """The last turn is the assistant's and is the response; the turns before it are the prompt."""
    *prompt, last = messages
    if last["role"] != "assistant":
        raise BadRowError(BAD_MESSAGES, f"the last turn is the {last['role']}'s, expected the assistant's")
    if not any(turn["role"] == "user" and turn["content"].strip() for turn in prompt):
        raise BadRowError(EMPTY_PROMPT, "no user turn with content before the response")
    more = last.get("more", {})
    if "weight" in more:
        raise BadRowError(BAD_MESSAGES, "the last turn has weight 0: it is not to be trained on")
    response = last["content"] if "tool_calls" in more else _response(last["content"], "the last turn")
    return _Parts(prompt, response, more={key: more[key] for key in OF_RESPONSE if key in more})


def _choices(value: object) -> list[str] | None:
    """Option texts in order; of an object, by its letters, which must be A, B, C ... without a gap."""
    if value is None:
        return None
    if isinstance(value, dict):
        pairs = sorted(
            (str(letter).strip().upper(), text) for letter, text in value.items() if text is not None
        )
        if [letter for letter, _ in pairs] != [chr(ord("A") + place) for place in range(len(pairs))]:
            raise BadRowError(
                WRONG_TYPE, f"choices have the keys {listed(value)}, expected A, B, C ... without a gap"
            )
        value = [text for _, text in pairs]
    if not isinstance(value, list):
        raise BadRowError(WRONG_TYPE, f"choices is {kind_of(value)}, expected a list or an object by letter")
    return [
        _string(text, "a choice") if isinstance(text, str) else str(_number(text, "a choice"))
        for text in value
    ] or None


def _scalar(value: dict, field: Literal["item_id", "answer", "group"], source: SourceConfig) -> str | None:
    """A string, or a number as a string; null, NaN and blank are None."""
    content = inside(value, source.columns.get(field, field))
    if content is None or (isinstance(content, float) and math.isnan(content)):
        return None
    if isinstance(content, str):
        return content if content.strip() else None
    return str(_number(content, field))


def _number(content: object, what: str) -> int | float | Decimal:
    if isinstance(content, (int, Decimal)) and not isinstance(content, bool):
        return content
    if isinstance(content, float) and math.isfinite(content):
        return content
    raise BadRowError(WRONG_TYPE, f"{what} is {kind_of(content)}, expected text or a number")


def _string(content: object, what: str) -> str:
    if not isinstance(content, str):
        raise BadRowError(WRONG_TYPE, f"{what} is {kind_of(content)}, expected text")
    return content


def _text(content: object, what: str, empty: str) -> str:
    if content is None or not _string(content, what).strip():
        raise BadRowError(empty, f"{what} is {'null' if content is None else 'blank'}")
    return str(content)


def _response(content: object, what: str) -> str:
    return _text(content, what, EMPTY_RESPONSE)


def _user(content: str) -> list[Message]:
    return [{"role": "user", "content": content}]
