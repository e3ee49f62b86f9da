"""Axolotl: conversations for its chat_template strategy, and the entry of its config that reads them.

https://docs.axolotl.ai/docs/dataset-formats/conversation.html#chat_template: OpenAI messages in a column
``messages``. By default every answer of a conversation is trained on; the key ``train`` of each message,
named by ``message_field_training``, leaves the last one.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from zpd_ray.export.base import Rows
from zpd_ray.export.files import LINES, check_filled, write_lines

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
            messages = [turn | {"train": False} for turn in row["prompt"]]
            messages += [turn | {"train": True} for turn in row["completion"]]
            return {"item_id": row["item_id"], "messages": messages} | {k: row[k] for k in rows.carried}

        write_lines(rows, directory, convert, partial(check_filled, column="completion", format="axolotl"))
        path = json.dumps(str(rows.place / LINES))  # a JSON string is a YAML string
        (directory / "axolotl.yaml").write_text(CONFIG.format(path=path), encoding="utf-8")
