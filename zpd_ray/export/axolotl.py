"""Axolotl: conversations for its chat_template strategy, and the entry of its config that reads them.

https://docs.axolotl.ai/docs/dataset-formats/conversation.html#chat_template: OpenAI messages in a column
``messages``. By default every answer of a conversation is trained on; the key ``train`` of each message,
named by ``message_field_training``, leaves the last one, or all that train.turns = "all" trains on. What
calls and definitions of tools hold is text in JSON: the library that reads the file wants one type in each
place, and axolotl parses it.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from zpd_ray.export.base import Rows
from zpd_ray.export.files import LINES, TOOLS, check_filled, write_lines

CONFIG = """\
datasets:
  - path: {path}
    ds_type: json
    type: chat_template
    field_messages: messages
    roles_to_train: []
    message_field_training: train
    train_on_eos: turn
"""


class Axolotl:
    """train.jsonl with ``messages``, and axolotl.yaml."""

    needs = ()
    hint = "take the entry in {into}/axolotl.yaml into the `datasets:` of your config"

    def write(self, rows: Rows, directory: Path) -> None:
        """Both files."""

        def convert(row: dict[str, Any]) -> dict[str, Any]:
            messages = [turn | {"train": rows.all_turns and _is_learnt(turn)} for turn in row["prompt"]]
            messages += [turn | {"train": True} for turn in row["completion"]]
            told = {"item_id": row["item_id"], "messages": list(map(_flat, messages))}
            if TOOLS in row:
                told[TOOLS] = [_with_text(tool, "parameters") for tool in row[TOOLS]]
            return told | {k: row[k] for k in rows.carried}

        write_lines(rows, directory, convert, partial(check_filled, column="completion", format="axolotl"))
        path = json.dumps(str(rows.place / LINES))  # a JSON string is a YAML string
        (directory / "axolotl.yaml").write_text(CONFIG.format(path=path), encoding="utf-8")


def _is_learnt(turn: dict[str, Any]) -> bool:
    return bool(turn["role"] == "assistant" and "weight" not in turn)


def _flat(turn: dict[str, Any]) -> dict[str, Any]:
    if "tool_calls" not in turn:
        return turn
    return turn | {"tool_calls": [_with_text(call, "arguments") for call in turn["tool_calls"]]}


def _with_text(call: dict[str, Any], key: str) -> dict[str, Any]:
    function = call["function"]
    told = {key: json.dumps(function[key], ensure_ascii=False)} if key in function else {}
    return call | {"function": function | told}
