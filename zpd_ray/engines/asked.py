"""Which tokens of a prompt its own NLL is over, where items are prompts alone (``reference = "prompt"``).

Those in which a character of a user's turn is, after all that stands before it: not what the chat template
adds, not the system's turn, tools and earlier answers, which many prompts share and which would bring the
mean of a short prompt nearer to that of all others. The first token of the sequence has no NLL, since nothing
predicts it. A token counts whole where a part of it is the user's (" What" after a mark, "?" with the line
break of the template).

The ids are exactly those that generation is prompted with. Where a user's turn is, is seen by writing the
prompt a second time with marks in its place: a template may trim what a user says, and where it writes it
otherwise the item is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zpd_ray.engines.templates import MARK, Chat, RefusedError, Span

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

ONE_TOKEN = "the prompt has one token of the user's, which nothing predicts, so that it has no NLL"
OTHERWISE = (
    "the chat template does not write what the user says as it is, so that nothing tells which tokens of the "
    "prompt are the user's"
)


def marked(chat: Chat) -> Chat:
    """The chat with a mark of its own in place of what each turn of the user's says."""
    turns = [
        turn | {"content": _mark(place)} if turn["role"] == "user" else turn
        for place, turn in enumerate(chat.turns)
    ]
    return chat._replace(turns=turns)


def user_spans(chat: Chat, text: str, with_marks: str) -> list[Span]:
    """Where in the prompt ``text`` of a chat the user's turns are; with_marks: the prompt of ``marked``.

    Raises RefusedError where the template does not write them in their places as they are, white space around
    them aside.
    """
    spans, at, rest = list[Span](), 0, with_marks
    for place, turn in enumerate(chat.turns):
        if turn["role"] != "user":
            continue
        before, mark, rest = rest.partition(_mark(place))
        following = rest.partition(MARK)[0]
        start = at + len(before)
        forms = (turn["content"], turn["content"].strip())
        said = next((form for form in forms if text.startswith(form + following, start)), None)
        if not mark or said is None or text[at:start] != before:
            raise RefusedError(OTHERWISE)
        at = start + len(said)
        spans.append((start, at))
    return spans


def counted(tokenizer: PreTrainedTokenizerBase, text: str, spans: list[Span], lead: int) -> list[bool]:
    """Of each id of a prompt whether its NLL is over it. lead: how many ids stand before the text's own.

    Raises RefusedError where there is none.
    """
    starts, ends, _ = offsets(tokenizer, text)
    own = np.zeros(len(starts), dtype=bool)
    for start, end in spans:
        own |= (starts < end) & (ends > start)
    found = [False, *([False] * lead + own.tolist())[1:]]
    if True not in found:
        raise RefusedError(ONE_TOKEN)
    return found


def offsets(
    tokenizer: PreTrainedTokenizerBase, text: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[int]]:
    """Where each token of a text starts and ends, in characters, int64 (n,) each, and the tokens' ids."""
    found = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    starts, ends = np.array(found.offsets, dtype=np.int64).reshape(-1, 2).T
    # Tokens of spaces alone are told as empty by some (``trim_offsets``): they begin where the last one ends.
    before = np.concatenate([[0], np.maximum.accumulate(ends)[:-1]]) if len(ends) else ends
    return np.where(starts < ends, starts, before), ends, list(found.ids)


def inside(tokenizer: PreTrainedTokenizerBase, text: str, spans: list[Span], stops: list[int]) -> list[bool]:
    """Of each token of a text whether it lies in one of the spans whole; one of ``stops``: whether it begins
    there, since some tokenizers (Phi 3's) let it swallow the white space after it."""
    starts, ends, ids = offsets(tokenizer, text)
    within, closes = np.zeros(len(starts), dtype=bool), np.isin(ids, stops)
    for start, end in spans:
        within |= (starts >= start) & (starts < end) & ((ends <= end) | closes)
    return list(within.tolist())


def _mark(place: int) -> str:
    return f"{MARK}{place}x"
