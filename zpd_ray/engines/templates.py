"""What a tokenizer's chat template makes of a conversation: its prompt, its last turn, where its answers are.

A template is a program: it may refuse turns, leave out tools it does not know, drop earlier reasoning, or
write a turn in another way once others follow. So what it writes is looked at, not believed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from zpd_ray.errors import first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Some templates (Llama 3) print the day: a run resumed tomorrow must see the prompts that it saw today.
TODAY = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"
MARK = "zpdmark"  # stands for what a template is asked about: an answer, a turn, the name of a function
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")  # a template that says itself what is generated
ASK = {"role": "user", "content": "?"}  # for a last turn without others before it

Turn = dict[str, Any]  # role, content, and what else there is
Span = tuple[int, int]  # of characters, the second not included


class RefusedError(Exception):
    """Why an item cannot be written by the chat template as it would have to be; a sentence."""


class Chat(NamedTuple):
    """An item as a template sees it. turns: of its prompt; tools: definitions; more: what its last turn holds
    beside the response; None: nothing."""

    turns: list[Turn]
    tools: list[dict[str, Any]] | None = None
    more: dict[str, Any] | None = None

    @property
    def has_answers(self) -> bool:
        """Whether its prompt holds earlier answers."""
        return any(turn["role"] == "assistant" for turn in self.turns)

    @property
    def uses_tools(self) -> bool:
        """Whether its prompt defines tools or calls them."""
        return bool(self.tools) or any("tool_calls" in turn for turn in self.turns)


def chats_of(
    messages: Iterable[Sequence[dict[str, Any]] | None],
    more: Iterable[str | None] | None,
    tools: Iterable[str | None] | None,
) -> list[Chat]:
    """Chats from the columns ``messages``, ``response_more`` and ``tools`` of items (JSON, see schema)."""
    chats = [Chat([_turn(turn) for turn in row or ()]) for row in messages]
    for field, texts in (("more", more), ("tools", tools)):
        for i, text in enumerate(texts or ()):
            if text:
                chats[i] = chats[i]._replace(**{field: json.loads(text)})
    return chats


def prompts(tokenizer: PreTrainedTokenizerBase, chats: list[Chat]) -> tuple[list[str], list[str | None]]:
    """Prompts as text, and per chat why the template refuses it, or None."""
    texts, error = [""] * len(chats), list[str | None]([None] * len(chats))
    plain = [i for i, chat in enumerate(chats) if not chat.tools]
    try:
        rendered = _render(tokenizer, [chats[i].turns for i in plain], None) if plain else []
        for i, text in zip(plain, rendered, strict=True):
            texts[i] = text
        closer = [i for i, chat in enumerate(chats) if chat.uses_tools]
    except Exception:  # a template raises what it likes; the row at fault is found below
        closer = list(range(len(chats)))
    for i in closer:
        try:
            texts[i] = write(tokenizer, chats[i].turns, chats[i].tools)
            _check_tools(tokenizer, chats[i].turns, chats[i].tools)
        except RefusedError as why:
            texts[i], error[i] = "", str(why)
    return texts, error


def reply(tokenizer: PreTrainedTokenizerBase, chat: Chat, prompt: str, response: str) -> str:
    """What the template writes after a prompt for a last turn that holds more than text.

    Raises RefusedError where it begins otherwise than the prompt, or leaves something out.
    """
    more = chat.more or {}
    turns = [*chat.turns, {"role": "assistant", "content": response} | more]
    whole = write(tokenizer, turns, chat.tools, prompted=False)
    if not whole.startswith(prompt):
        raise RefusedError("the chat template writes other turns before the last one than it asks it with")
    _check_tools(tokenizer, turns, chat.tools)
    _check_said(turns[-1], len(turns), whole[len(prompt) :])
    return whole[len(prompt) :]


def answer_spans(
    tokenizer: PreTrainedTokenizerBase, chat: Chat, text: str, stops: Iterable[str]
) -> list[Span]:
    """Where in the prompt ``text`` of a chat its earlier answers are, each with the token that ends it.

    By the template's own marks (``{% generation %}``) where it has some, and no turn has a weight; else by
    what its prompt is longer than the prompts of the turns before each answer. stops: the texts of tokens at
    which generation stops. Raises RefusedError where an answer is not written as it would have been asked
    for, is not all there, or has no end.
    """
    # Nothing asks for a greeting that comes first: it stays part of the prompt.
    answers = [i for i, turn in enumerate(chat.turns) if i and turn["role"] == "assistant"]
    weighted = any("weight" in turn for turn in chat.turns)
    if answers and GENERATION.search(_template(tokenizer, chat.tools)) and not weighted:
        spans = _marked_spans(tokenizer, chat)
        written, at = "".join(text[start:end] for start, end in spans), 0
        for i in answers:
            at = _check_said(chat.turns[i], i + 1, written, at)
        return spans
    learnt = [i for i in answers if "weight" not in chat.turns[i]]
    return [_answer_span(tokenizer, chat, text, i, stops) for i in learnt]


def write(
    tokenizer: PreTrainedTokenizerBase,
    turns: list[Turn],
    tools: list[dict[str, Any]] | None,
    prompted: bool = True,
) -> str:
    """One conversation as text; prompted: with what asks for the next answer. Raises RefusedError."""
    try:
        return _render(tokenizer, [turns], tools, prompted)[0]
    except Exception as error:
        raise RefusedError(f"the chat template refuses the messages: {first_line(error)}") from None


def _turn(turn: dict[str, Any]) -> Turn:
    plain = {"role": turn["role"], "content": turn["content"] or ""}
    return plain | json.loads(turn["more"]) if turn.get("more") else plain


def _template(tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]] | None) -> str:
    template = str(tokenizer.get_chat_template(None, tools))
    return TODAY + template if "strftime_now" in template else template


def _render(
    tokenizer: PreTrainedTokenizerBase,
    rows: list[list[Turn]],
    tools: list[dict[str, Any]] | None,
    prompted: bool = True,
) -> list[str]:
    rendered: Any = tokenizer.apply_chat_template(
        rows,
        tools=tools,
        chat_template=_template(tokenizer, tools),
        tokenize=False,
        add_generation_prompt=prompted,
    )
    return list(rendered)


def _check_tools(
    tokenizer: PreTrainedTokenizerBase, turns: list[Turn], tools: list[dict[str, Any]] | None
) -> None:
    """Raises RefusedError when the template writes a tool's definition or a call nowhere.

    Each function gets a name of its own, which then has to be there: many templates know no tools and go on.
    """
    number = count()
    defined = [_renamed(tool, number) for tool in tools or ()]
    called = [
        turn | {"tool_calls": [_renamed(call, number) for call in turn["tool_calls"]]}
        if "tool_calls" in turn
        else turn
        for turn in turns
    ]
    total = next(number)
    if total == 0:
        return
    prompted = not turns or turns[-1]["role"] != "assistant"
    text = write(tokenizer, called, defined or None, prompted)
    absent = [i for i in range(total) if f"{MARK}{i}x" not in text]
    if absent:
        what = "the definitions of its tools" if absent[0] < len(defined) else "calls of tools"
        raise RefusedError(
            f"the chat template leaves out {what}; its model may know none, or be told in a system turn"
        )


def _renamed(call: dict[str, Any], number: count[int]) -> dict[str, Any]:
    return call | {"function": call["function"] | {"name": f"{MARK}{next(number)}x"}}


def _check_said(turn: Turn, place: int, written: str, start: int = 0) -> int:
    """Where in ``written`` a turn's content ends. Raises RefusedError when it or its reasoning is absent."""
    reasoning, advice = turn.get("reasoning_content", ""), "; put it into the content, or leave it out"
    for what, said in ((f"reasoning of turn {place}", reasoning), (f"text of turn {place}", turn["content"])):
        at = written.find(said.strip(), start)
        if at < 0:
            raise RefusedError(
                f"the chat template does not write the {what} as it is, and the model would learn an answer "
                f"without it{advice if what.startswith('reasoning') else ''}"
            )
    return at + len(said.strip())


def _marked_spans(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> list[Span]:
    from transformers.utils.chat_template_utils import render_jinja_template

    _, spans = render_jinja_template(
        conversations=[chat.turns],
        tools=chat.tools,
        chat_template=_template(tokenizer, chat.tools),
        return_assistant_tokens_mask=True,
        add_generation_prompt=True,
        **tokenizer.special_tokens_map,
    )
    return [(int(start), int(end)) for start, end in spans[0]]


def _answer_span(
    tokenizer: PreTrainedTokenizerBase, chat: Chat, text: str, i: int, stops: Iterable[str]
) -> Span:
    """From where the model would have been asked for turn ``i`` (from 0) to the token that ends it."""
    turns, place = chat.turns, i + 1
    before = write(tokenizer, turns[:i], chat.tools)
    # The turn, and what begins the next one: its content is where the two texts part.
    following = text
    if place < len(turns):
        following = write(tokenizer, [*turns[:place], turns[place] | {"content": MARK}], chat.tools, False)
    bound = _common(text, following)
    if not text.startswith(before) or bound < len(before):
        raise RefusedError(
            f"the chat template writes what comes before turn {place} in another way once others follow, and "
            "the model would learn an answer where it is never asked for it"
        )
    ends = [at + len(stop) for stop in stops if (at := text.find(stop, len(before), bound)) >= 0]
    if not ends:
        raise RefusedError(f"the chat template ends turn {place} with no token at which generation stops")
    _check_said(turns[i], place, text[len(before) : min(ends)])
    return len(before), min(ends)


def _common(one: str, other: str) -> int:
    """Characters that two texts begin with alike."""
    parts = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(parts, min(len(one), len(other)))
