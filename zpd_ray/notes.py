"""What would go wrong with data without a word, seen in its first items: sentences for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from zpd_ray.config import Config
from zpd_ray.engines import ENGINES, model_files, tokens
from zpd_ray.readers.columns import RESPONSES, SOLUTION

SHORT = 5  # words: a reference that is no more holds no solution


def undecided(config: Config) -> bool:
    """Whether references are trained on, and the config does not say what they are."""
    return config.pool.reference is None and config.train.method != "none"


def answers_alone(items: pa.Table) -> bool:
    """Whether every reference is the gold answer and no more than a few words."""
    rows = items.select(["response", "answer"]).to_pylist()
    alone = (None not in row.values() and row["answer"].strip() == row["response"].strip() for row in rows)
    return bool(rows) and all(alone) and max(len(row["response"].split()) for row in rows) <= SHORT


def notes(config: Config, items: pa.Table) -> Iterator[str]:
    """What would go wrong without a word, in sentences."""
    rows = items.select(["messages", "choices"]).to_pylist()
    if undecided(config) and answers_alone(items):
        yield (
            "the reference is the gold answer alone, so the model would be trained to answer without a "
            'solution: map the column that has one, as in columns = { response = "solution" }, or say what '
            'is meant with pool.reference = "answer" or "none"'
        )
    unread = _unread(items)
    if unread:
        yield (
            f'rows hold {", ".join(map(repr, unread))} beside the prompt, and reference = "prompt" reads no '
            "responses: they are neither measured nor trained on"
        )
    unseen = sum(_hidden(row) for row in rows)
    if unseen:
        yield (
            f"of the first {len(rows)} items {unseen} have choices that their prompt does not show, and the "
            "model will not see: put them into the prompt"
        )
    if not ENGINES.load(config.engine.name).reads_text:
        return
    tokenizer = model_files.load_tokenizer(config.model.path)
    turns = [turn["role"] for row in rows for turn in row["messages"]]
    if tokenizer.chat_template is None and set(turns) - {"user"}:
        yield "the model has no chat template: roles are dropped, and turns joined by a blank line"
    if tokens.end_id(tokenizer) is None:
        yield (
            "the model has no end-of-text token: its responses end at measure.max_new_tokens, and references "
            "teach it no end"
        )
    vocabulary = model_files.vocabulary_of(config.model.path)
    if len(tokenizer) > vocabulary:
        yield (
            f"the tokenizer has {len(tokenizer)} tokens with those that were added, the model {vocabulary}: "
            "a text that holds one of the others cannot be measured"
        )


def _unread(items: pa.Table) -> list[str]:
    """Columns that would be taken for a response, of items that are read as prompts alone."""
    alone = items.filter(pc.is_null(items["response"]))
    names = {name for text in alone["extra"].to_pylist() if text for name in json.loads(text)}
    return sorted(name for name in names if name.casefold() in (*RESPONSES, SOLUTION))


def _hidden(row: dict[str, Any]) -> bool:
    prompt = "\n".join(turn["content"] for turn in row["messages"])
    return any(text not in prompt for text in row["choices"] or ())
