"""Rows whose ids the version before conversations knew tools has made; what it made is in test_turns."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from transformers import PreTrainedTokenizerFast

from zpd_ray.config import SourceConfig
from zpd_ray.engines import tokens
from zpd_ray.graders import load
from zpd_ray.readers.items import to_items
from zpd_ray.readers.rows import RawRow

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "naïve café, 数学?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": 'And "then"?\n'},
]
LAST = {"role": "assistant", "content": "The quick brown fox 🙂 jumps."}
ROWS: list[dict[str, Any]] = [
    {"messages": [*CHAT, LAST], "answer": "48", "z": 1},
    {"messages": [*CHAT[1:], LAST | {"id": 7}]},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]},
    {"prompt": CHAT, "completion": [LAST]},
    {"prompt": "q", "response": "r", "tools": "a hammer"},
    {"question": "How many?", "answer": "In all 48.", "choices": ["a", "b"]},
    {"instruction": "Do it.", "input": "Twice.", "output": "Done."},
]


def items_of_rows() -> str:
    """A digest over ids, hashes, texts and extra of all rows as items."""
    rows = [RawRow(number, row) for number, row in enumerate(ROWS)]
    items, bad = to_items(rows, "f.jsonl", SourceConfig(path="f"), load("greedy_match"))
    assert bad.num_rows == 0
    told = items.select(["item_id", "content_hash", "prompt_key", "response", "extra"]).to_pylist()
    return sha256(json.dumps(told).encode()).hexdigest()[:16]


def ids_of_rows(tokenizer: PreTrainedTokenizerFast) -> str:
    """A digest over the token ids of all rows."""
    rows = [RawRow(number, row) for number, row in enumerate(ROWS)]
    items, _ = to_items(rows, "f.jsonl", SourceConfig(path="f"), load("greedy_match"))
    found = tokens.encode(tokenizer, items["messages"], items["response"], "\n")
    return sha256(json.dumps([found.prompt_ids, found.response_ids, found.error]).encode()).hexdigest()[:16]
