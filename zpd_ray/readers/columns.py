"""Which columns of a row hold what: the names that are recognised, and those that the config maps.

Names count whatever their case; a mapped column may lie inside another one: ``reward_model.ground_truth``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zpd_ray.config import SourceConfig
from zpd_ray.errors import ZpdError

PROMPTS = ("prompt", "question", "instruction", "input", "problem", "query")
RESPONSES = ("response", "completion", "output", "answer")
SOLUTION = "solution"  # the response of a "problem", whose "answer" is its last line (MATH)
CONTEXTS, SYSTEMS = ("context",), ("system_prompt", "system")
# Names that other tools use for what is not a prompt or a response; `zpd-ray init` maps them.
ELSEWHERE = {
    "prompt": ("text", "source", "user", "inputs"),
    "response": ("target", "targets", "reply", "assistant", "chosen", "label", "summary"),
    "answer": ("ground_truth", "gold", "final_answer", "reward_model.ground_truth", "expected_answer"),
    "group": ("subject", "category", "domain", "skill", "task", "data_source", "type"),
}
FIELDS = ("item_id", "answer", "choices", "group")  # that an item takes from a column of that name
KNOWN = {
    *PROMPTS,
    *RESPONSES,
    SOLUTION,
    *CONTEXTS,
    *SYSTEMS,
    "messages",
    "conversations",
    "tools",
    *FIELDS,
}


def recognise(value: dict, alone: bool = False) -> str | None:
    """The shape of a row by the columns that are there and not null, or None.

    alone: of a row that is read as a prompt and nothing else, as ``view_of`` shows it.
    """
    here = {name for name, content in value.items() if content is not None}
    if "messages" in here:
        return "messages"
    if "conversations" in here:
        return "sharegpt"
    if "instruction" in here and (alone or "output" in here):
        return "alpaca"
    prompt, response = pair_of(here)
    if alone:
        return prompt and "prompt"
    if prompt is None or response is None:
        return None
    return "question_answer" if (prompt, response) == ("question", "answer") else "prompt_response"


def pair_of(here: Iterable[str]) -> tuple[str | None, str | None]:
    """Names of the prompt and of the response among those that are there."""
    here = set(here)
    prompt = first_of(PROMPTS, here)
    solved = prompt == "problem" and SOLUTION in here and not {"response", "completion"} & here
    return prompt, SOLUTION if solved else first_of(RESPONSES, here)


def recognised_as(value: dict, source: SourceConfig) -> str | None:
    """The shape that a row of a source is taken for, or None."""
    return shape_of(view_of(value, source), source)


def shape_of(view: dict, source: SourceConfig) -> str | None:
    """The same of a row as ``view_of`` shows it."""
    alone = source.prompts_alone
    if source.shape == "auto" or "prompt" in source.columns or "messages" in source.columns:
        return recognise(view, alone)
    return "prompt" if alone and source.shape in ("prompt_response", "question_answer") else source.shape


def takes_tools(view: dict, shape: str, source: SourceConfig) -> bool:
    """Whether a column ``tools`` defines tools that turns may call; beside a prompt that is a text it may be
    about anything, unless it is mapped."""
    turns = shape in ("messages", "sharegpt") or isinstance(view.get(pair_of(view)[0] or ""), list)
    return turns or "tools" in source.columns


def guess_columns(value: dict) -> dict[str, str]:
    """A mapping for a row of no known shape, by names that other tools use; {} where none is there."""
    value = in_lower_case(value, ())
    names = {name.casefold(): name for name in value if isinstance(name, str)}
    known = {"prompt": PROMPTS, "response": (*RESPONSES, SOLUTION)}
    found = {}
    for field, others in ELSEWHERE.items():
        if any(inside(value, name) is not None for name in known.get(field, (field,))):
            continue
        for other in others:
            column = names.get(other, other)
            content = inside(value, column)
            if isinstance(content, (str, list)) or (field in ("answer", "group") and content is not None):
                found[field] = column
                break
    if "response" not in found and "answer" in found and pair_of(value)[1] is None:
        found["response"] = found["answer"]  # data for reinforcement learning has no other reference
    return found


def inside(value: dict, column: str) -> Any:
    """The value of a column, or of one inside another: ``reward_model.ground_truth``; None: not there."""
    if column in value:
        return value[column]
    outer, dot, inner = column.partition(".")
    nested = value.get(outer)
    return inside(nested, inner) if dot and isinstance(nested, dict) else None


def is_there(value: dict, column: str) -> bool:
    """Also where it is null."""
    outer, dot, inner = column.partition(".")
    nested = value.get(outer)
    return column in value or bool(dot and isinstance(nested, dict) and is_there(nested, inner))


def in_lower_case(value: dict, mapped: Iterable[str]) -> dict:
    """The row with ``Question`` as ``question``, unless a column has that name already, or it is mapped."""
    kept = {column.partition(".")[0] for column in mapped}
    renamed = {
        name: name.casefold()
        for name in value
        if isinstance(name, str)
        and name not in kept
        and name.casefold() in KNOWN
        and name.casefold() not in value
    }
    return {renamed.get(name, name): content for name, content in value.items()} if renamed else value


def check_columns(first_row: Iterable[str], source: SourceConfig) -> None:
    """To be called once per file with the columns of its first row.

    Raises ZpdError when a mapped column is not there, or when nothing there makes a known shape.
    """
    columns = list(first_row)
    absent = [
        f"{field} = {column!r}"
        for field, column in source.columns.items()
        if column not in columns and column.partition(".")[0] not in columns
    ]
    there = ", ".join(map(repr, columns)) or "none"
    if absent:
        raise ZpdError(
            f"a mapped column is not there: {', '.join(absent)}; the columns are {there}; correct 'columns'"
        )
    if {"prompt", "messages"} <= source.columns.keys():
        raise ZpdError("both 'prompt' and 'messages' are mapped; a prompt is one or the other, map one")
    view = view_of(dict.fromkeys([*columns, *source.columns.values()], ""), source)
    alone = source.prompts_alone
    if (source.shape if source.shape != "auto" else recognise(view, alone)) is not None:
        return
    if alone:
        raise ZpdError(
            f"none of the columns {there} is known to hold a prompt; map it, e.g. columns = "
            '{ prompt = "..." }'
        )
    raise ZpdError(
        f"the columns {there} make none of the known shapes (prompt and response, question and answer, "
        'messages, Alpaca, ShareGPT); map them, e.g. columns = { prompt = "...", response = "..." }'
        f"{only_a_prompt(view)}"
    )


def only_a_prompt(view: dict) -> str:
    """What else can be done about a row without a response; "" where it has no prompt either."""
    if recognise(view, alone=True) is None:
        return ""
    return '; where rows hold prompts and nothing else, say so with reference = "prompt"'


def view_of(row: dict, source: SourceConfig) -> dict:
    """The row with the mapped prompt and response under their own names, in place of unmapped ones."""
    value = in_lower_case(row, source.columns.values())
    if source.prompts_alone:  # a gold answer is no part of the shape
        value = {name: content for name, content in value.items() if name not in (*RESPONSES, SOLUTION)}
    if not source.columns:
        return value
    taken = {column for column in source.columns.values() if column in (*CONTEXTS, *SYSTEMS)}
    value = {name: content for name, content in value.items() if name not in taken} if taken else value
    mapped = {
        field: column
        for field, column in source.columns.items()
        if field in ("prompt", "messages", "response")
    }
    if not mapped:
        return value
    view = dict(value)
    if "prompt" in mapped or "messages" in mapped:
        for name in ("messages", "conversations", *PROMPTS):
            view.pop(name, None)
    if "response" in mapped:
        for name in RESPONSES:
            view.pop(name, None)
    return view | {field: inside(row, column) for field, column in mapped.items()}


def first_of(names: tuple[str, ...], here: Iterable[str]) -> str | None:
    return next((name for name in names if name in here), None)


def listed(value: dict) -> str:
    listed = [repr(name) for name in value]
    return ", ".join(listed[:12]) + (" ..." if len(listed) > 12 else "") or "nothing"
