"""The one place where text becomes token ids: ingest measures lengths with it, engines score, trainers train.

A prompt is the chat template's rendering where the tokenizer has one, else the contents joined by blank
lines plus the separator. A response ends with the id that ends a turn, so that the NLL counts knowing when to
stop. Prompt ids are exactly what generation is prompted with: "every response id is the model's first choice"
and "greedy decoding reproduces the reference" are then one statement. Special tokens spelled out in a
text are read as the tokenizer reads them; one that ends a turn, inside a response, makes the row an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zpd_ray.errors import first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# Some templates (Llama 3) print the day: a run resumed tomorrow must see the prompts that it saw today.
TODAY = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"
MARK = "zpdmark"  # stands for an assistant's answer where a template is asked what follows one

Ids = list[int]


@dataclass(frozen=True)
class Encoded:
    """Token ids of n items; rows with an error have no ids. ``error``: why an item has no ids, or None."""

    prompt_ids: list[Ids]
    response_ids: list[Ids]
    error: list[str | None]


def encode(
    tokenizer: PreTrainedTokenizerBase,
    messages: Iterable[Sequence[dict[str, str]]],
    responses: Iterable[str | None],
    separator: str,
) -> Encoded:
    """Ids of prompts and of responses (end of turn included, once).

    messages: per item a list of {role, content}; responses: per item its text (both also as arrow columns).
    The boundary is found on ids: those of the prompt alone are kept as they are. Where they are a prefix of
    the ids of prompt + response, the rest is the response; where the tokenizer merged across the boundary,
    the response is tokenised by itself. An item without messages has one id in place of a prompt, which
    predicts the first token of its response (``start_ids``).
    """
    turns, replies = [row or () for row in _rows(messages)], [text or "" for text in _rows(responses)]
    texts, error = prompt_texts(tokenizer, turns, separator)
    prompt_ids = _prompt_ids(tokenizer, texts, error)
    bare = [i for i, row in enumerate(turns) if len(row) == 0]
    for i in bare:
        texts[i], error[i], prompt_ids[i] = "", None, start_ids(tokenizer)
    response_ids = _after(tokenizer, texts, prompt_ids, replies)
    for i, ids in zip(bare, _ids(tokenizer, [replies[i] for i in bare]), strict=True):
        response_ids[i] = ids
    end, stops = end_id(tokenizer), stop_ids(tokenizer)
    for i, ids in enumerate(response_ids):
        error[i] = error[i] or _flaw(prompt_ids[i], ids, stops)
        if error[i] is not None:
            prompt_ids[i], response_ids[i] = [], []
        elif end is not None and ids[-1] not in stops:
            response_ids[i] = [*ids, end]
    return Encoded(prompt_ids, response_ids, error)


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, messages: Iterable[Sequence[dict[str, str]]], separator: str
) -> tuple[list[Ids], list[str | None]]:
    """Ids of prompts, as generation is prompted with; empty with an error where the template refuses."""
    texts, error = prompt_texts(tokenizer, messages, separator)
    return _prompt_ids(tokenizer, texts, error), error


def prompt_texts(
    tokenizer: PreTrainedTokenizerBase, messages: Iterable[Sequence[dict[str, str]]], separator: str
) -> tuple[list[str], list[str | None]]:
    """Prompts as text, and per item why the chat template refused it, or None."""
    rows = [
        [{"role": turn["role"], "content": turn["content"] or ""} for turn in row or ()]
        for row in _rows(messages)
    ]
    if not tokenizer.chat_template:
        texts = ["\n\n".join(turn["content"] for turn in row if turn["content"]) + separator for row in rows]
        return texts, [None] * len(rows)
    try:
        return (_render(tokenizer, rows) if rows else []), [None] * len(rows)
    except Exception:  # a template is a program and raises what it likes; the row at fault is found below
        rendered = [_render_one(tokenizer, row) for row in rows]
    return [text for text, _ in rendered], [why for _, why in rendered]


def end_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id that ends a response: what the chat template puts after an answer, else end-of-text, if any."""
    if not tokenizer.chat_template:
        return tokenizer.eos_token_id
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": MARK}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False)
    except Exception:  # a template for single prompts only: it cannot say how an answer ends
        return tokenizer.eos_token_id
    tail = _ids(tokenizer, [str(text).rpartition(MARK)[2]])[0]
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return tail[0] if tail and tail[0] in special else tokenizer.eos_token_id


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The ids at which generation stops: end of turn and end of text."""
    return {i for i in (end_id(tokenizer), tokenizer.eos_token_id) if i is not None}


def start_ids(tokenizer: PreTrainedTokenizerBase) -> Ids:
    """What stands before a text without a prompt: begin-of-text, else end-of-text (as in lm-eval-harness)."""
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return [] if start is None else [start]


def leading_ids(tokenizer: PreTrainedTokenizerBase) -> Ids:
    """What the tokenizer itself puts before a text (begin-of-text); a chat template brings its own."""
    if tokenizer.chat_template:
        return []
    whole, body = tokenizer("a").input_ids, tokenizer("a", add_special_tokens=False).input_ids
    starts = [i for i in range(len(whole)) if whole[i : i + len(body)] == body]
    return whole[: starts[0]] if starts else []


def _prompt_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str], error: list[str | None]) -> list[Ids]:
    lead = leading_ids(tokenizer)
    ids = _ids(tokenizer, texts)
    return [lead + row if why is None else [] for row, why in zip(ids, error, strict=True)]


def _after(
    tokenizer: PreTrainedTokenizerBase, prompts: list[str], prompt_ids: list[Ids], replies: list[str]
) -> list[Ids]:
    """Ids of the replies after their prompts, without the end of the turn."""
    lead = leading_ids(tokenizer)
    joint = _ids(tokenizer, [prompt + reply for prompt, reply in zip(prompts, replies, strict=True)])
    whole = [lead + ids for ids in joint]
    merged = [i for i, ids in enumerate(prompt_ids) if whole[i][: len(ids)] != ids]
    after = [row[len(ids) :] for row, ids in zip(whole, prompt_ids, strict=True)]
    for i, ids in zip(merged, _ids(tokenizer, [replies[i] for i in merged]), strict=True):
        after[i] = ids
    return after


def _flaw(prompt: Ids, response: Ids, stops: set[int]) -> str | None:
    """Why these ids cannot be scored, or None."""
    if not prompt:
        return "the prompt has no tokens; nothing predicts the first response token"
    if not response:
        return "the response has no tokens"
    if not stops.isdisjoint(response[:-1]):
        return "the response holds an end-of-text token before its end; generation would stop there"
    return None


def _render(tokenizer: PreTrainedTokenizerBase, rows: list[list[dict[str, str]]]) -> list[str]:
    template = tokenizer.get_chat_template()
    template = TODAY + template if "strftime_now" in template else template
    rendered: Any = tokenizer.apply_chat_template(
        rows, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    return list(rendered)


def _render_one(tokenizer: PreTrainedTokenizerBase, row: list[dict[str, str]]) -> tuple[str, str | None]:
    try:
        return _render(tokenizer, [row])[0], None
    except Exception as error:
        return "", f"the chat template refuses the messages: {first_line(error)}"


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[Ids]:
    if not tokenizer.is_fast:
        return tokenizer(texts, add_special_tokens=False, verbose=False).input_ids if texts else []
    # What ``tokenizer(texts)`` does, without the offsets and masks that nobody here reads.
    backend = tokenizer.backend_tokenizer
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    return [row.ids for row in backend.encode_batch_fast(texts, add_special_tokens=False)]


def _rows(column: Any) -> list[Any]:
    return column.to_pylist() if hasattr(column, "to_pylist") else list(column)
