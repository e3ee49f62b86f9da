"""The one place where text becomes token ids: ingest measures lengths with it, engines score, trainers train.

A prompt is the chat template's rendering where the tokenizer has one, else the contents joined by blank
lines plus the separator. A response ends with the id that ends a turn, so that the NLL counts knowing when to
stop. Prompt ids are exactly what generation is prompted with: "every response id is the model's first choice"
and "greedy decoding reproduces the reference" are then one statement. Special tokens spelled out in a
text are read as the tokenizer reads them; one that ends a turn, inside a response, makes the row an error.

With ``turns = "all"`` the ids are the same, and earlier answers in the prompt are trained on too, each with
the token that ends it. A token counts where it lies inside an answer whole, by the tokenizer's offsets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zpd_ray.engines import asked, templates
from zpd_ray.engines.asked import inside
from zpd_ray.engines.templates import ASK, MARK, Chat, RefusedError
from zpd_ray.errors import ZpdError

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

    from zpd_ray.config import Config

Ids = list[int]
ALONE = "without its prompt it has its last turn alone, and train.turns = 'all' measures every answer"
NO_TEMPLATE = "it has tools, or reasoning apart, and the tokenizer has no chat template to write them with"


@dataclass(frozen=True)
class Encoded:
    """Token ids of n items; rows with an error have no ids. ``error``: why an item has no ids, or None.

    response_ids: from the first id that is trained on. trained: of each of these, whether it is; None: all.
    """

    prompt_ids: list[Ids]
    response_ids: list[Ids]
    error: list[str | None]
    trained: list[list[bool]] | None = None


def encode_items(tokenizer: PreTrainedTokenizerBase, items: pa.Table, config: Config) -> Encoded:
    """``encode`` of items (``schema.ITEM``), as a run wants them; ``encode_asked`` of prompts alone.

    A pool's items have responses, or none has (``pool.reference = "prompt"``).
    """
    messages, response, more, tools = (
        items[name] for name in ("messages", "response", "response_more", "tools")
    )
    if response.null_count == len(response) > 0:
        return encode_asked(tokenizer, messages, config.model.separator, tools)
    how = (config.model.separator, more, tools, config.train.turns)
    return encode(tokenizer, messages, response, *how)


def check_turns(config: Config, tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    """Raises ZpdError where all answers are to be trained on, or a prompt's own tokens to be counted, and the
    tokenizer cannot say where they are."""
    if config.train.turns == "all" and not tokenizer.chat_template:
        raise ZpdError(
            f"train.turns = 'all' finds answers by the chat template, and the tokenizer in {path} has none; "
            "put the model's chat_template.jinja beside it, or take train.turns = 'last'"
        )
    keys = {"train.turns = 'all'": config.train.turns == "all", "reference = 'prompt'": config.reads_prompts}
    key = next((key for key, given in keys.items() if given), None)
    if key is not None and not tokenizer.is_fast:
        raise ZpdError(
            f"{key} needs to know which characters a token has, and the tokenizer {type(tokenizer).__name__} "
            f"in {path} does not tell; put a tokenizer.json beside the model, or leave the key out"
        )


def encode(
    tokenizer: PreTrainedTokenizerBase,
    messages: Iterable[Sequence[dict[str, Any]]],
    responses: Iterable[str | None],
    separator: str,
    more: Iterable[str | None] = (),
    tools: Iterable[str | None] = (),
    turns: str = "last",
) -> Encoded:
    """Ids of prompts and of responses (end of turn included, once).

    messages: per item a list of {role, content}; responses: per item its text (both also as arrow columns).
    more, tools: the columns ``response_more`` and ``tools``, or nothing. turns: "last", or "all" answers are
    trained on.
    The boundary is found on ids: those of the prompt alone are kept as they are. Where they are a prefix of
    the ids of prompt + response, the rest is the response; where the tokenizer merged across the boundary,
    the response is tokenised by itself. An item without messages has one id in place of a prompt, which
    predicts the first token of its response (``start_ids``).
    """
    chats, replies = templates.chats_of(_rows(messages), _rows(more), _rows(tools)), _texts(responses)
    texts, error = _prompts(tokenizer, chats, separator)
    prompt_ids = _prompt_ids(tokenizer, texts, error)
    written = _written(tokenizer, chats, texts, replies, error)
    bare = [i for i, chat in enumerate(chats) if not chat.turns]
    for i in bare:
        texts[i], prompt_ids[i] = "", start_ids(tokenizer)
        error[i] = error[i] if i in written else None
    response_ids = _after(tokenizer, texts, prompt_ids, replies)
    for i, ids in zip(bare, _ids(tokenizer, [replies[i] for i in bare]), strict=True):
        response_ids[i] = ids
    end, stops = end_id(tokenizer), stop_ids(tokenizer)
    for i in written:
        response_ids[i] = _to_last(response_ids[i], stops)
    for i, ids in enumerate(response_ids):
        error[i] = error[i] or _flaw(prompt_ids[i], ids, stops)
        if error[i] is not None:
            prompt_ids[i], response_ids[i] = [], []
        elif end is not None and ids[-1] not in stops:
            response_ids[i] = [*ids, end]
    encoded = Encoded(prompt_ids, response_ids, error)
    return _with_answers(tokenizer, chats, texts, encoded) if turns == "all" else encoded


def encode_asked(
    tokenizer: PreTrainedTokenizerBase,
    messages: Iterable[Sequence[dict[str, Any]]],
    separator: str,
    tools: Iterable[str | None] = (),
) -> Encoded:
    """Ids of prompts alone, as generation is prompted with; ``response_ids``: from the first that counts.

    trained: which of these the NLL of the prompt is over (``engines.asked``); nothing is trained on.
    """
    chats = templates.chats_of(_rows(messages), (), _rows(tools))
    texts, error = _prompts(tokenizer, chats, separator)
    with_marks, _ = _prompts(tokenizer, list(map(asked.marked, chats)), separator)
    whole, lead = _prompt_ids(tokenizer, texts, error), len(leading_ids(tokenizer))
    counts: list[list[bool]] = [[] for _ in chats]
    for i in [i for i, why in enumerate(error) if why is None]:
        try:
            spans = asked.user_spans(chats[i], texts[i], with_marks[i])
            counts[i] = asked.counted(tokenizer, texts[i], spans, lead)
        except RefusedError as why:
            error[i], whole[i] = str(why), []
    first = [each.index(True) if each else 0 for each in counts]
    return Encoded(
        [ids[:at] for ids, at in zip(whole, first, strict=True)],
        [ids[at:] for ids, at in zip(whole, first, strict=True)],
        error,
        [each[at:] for each, at in zip(counts, first, strict=True)],
    )


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    messages: Iterable[Sequence[dict[str, Any]]],
    separator: str,
    tools: Iterable[str | None] = (),
) -> tuple[list[Ids], list[str | None]]:
    """Ids of prompts, as generation is prompted with; empty with an error where the template refuses."""
    texts, error = prompt_texts(tokenizer, messages, separator, tools)
    return _prompt_ids(tokenizer, texts, error), error


def prompt_texts(
    tokenizer: PreTrainedTokenizerBase,
    messages: Iterable[Sequence[dict[str, Any]]],
    separator: str,
    tools: Iterable[str | None] = (),
) -> tuple[list[str], list[str | None]]:
    """Prompts as text, and per item why the chat template refused it, or None."""
    return _prompts(tokenizer, templates.chats_of(_rows(messages), (), _rows(tools)), separator)


def _prompts(
    tokenizer: PreTrainedTokenizerBase, chats: list[Chat], separator: str
) -> tuple[list[str], list[str | None]]:
    if tokenizer.chat_template:
        return templates.prompts(tokenizer, chats)
    texts = ["\n\n".join(t["content"] for t in chat.turns if t["content"]) + separator for chat in chats]
    return texts, [NO_TEMPLATE if chat.uses_tools or chat.more else None for chat in chats]


def end_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id that ends a response: what the chat template puts after an answer, else end-of-text, if any."""
    if not tokenizer.chat_template:
        return tokenizer.eos_token_id
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": MARK}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False)
    except Exception:  # a template for single prompts only: it cannot say how an answer ends
        return tokenizer.eos_token_id
    _, said, after = str(text).rpartition(MARK)
    tail = _ids(tokenizer, [after])[0] if said else []  # some (of models for images) want no plain text
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


def _written(
    tokenizer: PreTrainedTokenizerBase,
    chats: list[Chat],
    texts: list[str],
    replies: list[str],
    error: list[str | None],
) -> set[int]:
    """Items whose last turn holds more than a text; what the template makes of it becomes their reply."""
    found = {i for i, chat in enumerate(chats) if chat.more}
    for i in found:
        chat, prompt = chats[i], texts[i]
        if not chat.turns and tokenizer.chat_template:  # asked without its prompt
            chat = chat._replace(turns=[ASK])
            (prompt,), (error[i],) = templates.prompts(tokenizer, [chat])
        if error[i] is None:
            try:
                replies[i] = templates.reply(tokenizer, chat, prompt, replies[i])
            except RefusedError as why:
                error[i] = str(why)
    return found


def _to_last(ids: Ids, stops: set[int]) -> Ids:
    """Without what a template puts after the token that ends a turn."""
    at = max((i for i, one in enumerate(ids) if one in stops), default=len(ids) - 1)
    return ids[: at + 1]


def _with_answers(
    tokenizer: PreTrainedTokenizerBase, chats: list[Chat], texts: list[str], last: Encoded
) -> Encoded:
    """The same rows with earlier answers trained on, too."""
    ends = sorted(stop_ids(tokenizer))
    stops = [str(tokenizer.convert_ids_to_tokens(i)) for i in ends]
    prompts, responses, error = list(last.prompt_ids), list(last.response_ids), list(last.error)
    trained = [[True] * len(ids) for ids in responses]
    for i, chat in enumerate(chats):
        if error[i] is not None or (chat.turns and not chat.has_answers):
            continue
        try:
            if not chat.turns:
                raise RefusedError(ALONE)
            spans = templates.answer_spans(tokenizer, chat, texts[i], stops)
        except RefusedError as why:
            error[i], prompts[i], responses[i], trained[i] = str(why), [], [], []
            continue
        learnt = [False, *inside(tokenizer, texts[i], spans, ends)[1:]]  # nothing predicts the first token
        first = learnt.index(True) if True in learnt else len(learnt)
        trained[i] = learnt[first:] + trained[i]
        prompts[i], responses[i] = prompts[i][:first], prompts[i][first:] + responses[i]
    return Encoded(prompts, responses, error, trained)


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


def _texts(column: Any) -> list[str]:
    return [text or "" for text in _rows(column)]


def _rows(column: Any) -> list[Any]:
    return column.to_pylist() if hasattr(column, "to_pylist") else list(column)
