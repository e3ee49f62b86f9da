"""Lengths of items in tokens, and which of them the model cannot take."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from zpd_ray import schema
from zpd_ray.config import Config, ModelConfig
from zpd_ray.engines import ENGINES, model_files, tokens
from zpd_ray.readers.rows import EXCERPT

TOO_LONG = "too long for the model"
NOT_TOKENISED = "cannot be tokenised"


def with_lengths(config: Config, items: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Items with their token columns, and those that the model cannot take."""
    prompt, response, problem = token_lengths(config, items)
    items = items.append_column("prompt_tokens", pa.array(prompt, pa.int32()))
    items = items.append_column("response_tokens", pa.array(response, pa.int32()))
    reason = pa.array([why and why[0] for why in problem], pa.string())
    bad = pc.is_valid(reason)
    rejected = items.filter(bad)
    quarantine = {
        "source_file": rejected["source_file"],
        "source_row": rejected["source_row"],
        "reason": reason.filter(bad),
        "detail": pa.array([why[1] for why in problem if why], pa.string()),
        "content": pc.utf8_slice_codeunits(pa.array(_said(rejected), pa.string()), 0, EXCERPT),
    }
    return items.filter(pc.invert(bad)), pa.table(quarantine, schema=schema.QUARANTINE)


def token_lengths(
    config: Config, items: pa.Table
) -> tuple[list[int], list[int], list[tuple[str, str] | None]]:
    """Tokens that are read and that are trained on (``schema.ITEM``), and per item why the model cannot take
    it (reason, detail), or None."""
    if not ENGINES.load(config.engine.name).reads_text:  # words stand for tokens
        words = [len(text.split()) for text in _said(items)]
        return [1] * len(words), words, [None] * len(words)
    tokenizer, limit = _tokenizer(config.model)
    ids = tokens.encode_items(tokenizer, items, config)
    whole = [len(p) + len(r) for p, r in zip(ids.prompt_ids, ids.response_ids, strict=True)]
    response = [sum(row) for row in ids.trained] if ids.trained else [len(row) for row in ids.response_ids]
    room = [0] * len(whole)
    for i, alone in enumerate(pc.is_null(items["response"]).to_pylist()):
        if alone:  # nothing of it is trained on, and the model has yet to say a token
            response[i], room[i] = 0, 1
    prompt = [total - learnt for total, learnt in zip(whole, response, strict=True)]
    problem = [_problem(*row, limit) for row in zip(ids.error, whole, room, strict=True)]
    return prompt, response, problem


def _problem(error: str | None, total: int, room: int, limit: int) -> tuple[str, str] | None:
    """Why the model cannot take an item of ``total`` tokens, beside which there must be ``room``."""
    if error:
        return NOT_TOKENISED, error
    if total + room <= limit:
        return None
    beside = " and has to have room for a response" * bool(room)
    return TOO_LONG, f"{total} tokens, the model takes {limit}{beside}"


def longest_prompt(config: Config, items: pa.Table) -> int:
    """The most tokens that a model is prompted with; where earlier answers are trained on, no fewer."""
    prompt = items["prompt_tokens"]
    lengths = prompt if config.train.turns == "last" else pc.add(prompt, items["response_tokens"])
    return int(pc.max(lengths).as_py() or 0)


def _said(items: pa.Table) -> list[str]:
    """The references, of mere tool calls their JSON."""
    rows = zip(items["response"].to_pylist(), items["response_more"].to_pylist(), strict=True)
    return [text or more or "" for text, more in rows]


@lru_cache(maxsize=1)
def _tokenizer(model: ModelConfig) -> tuple[Any, int]:
    tokenizer = model_files.load_tokenizer(model.path)
    return tokenizer, model_files.max_length(model, tokenizer)
