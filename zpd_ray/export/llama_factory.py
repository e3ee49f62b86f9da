"""LLaMA-Factory: conversations in the openai variant of its sharegpt format, and their dataset_info.json.

https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md: the description names the file, the column
and the keys of a message. It reads turns of user and assistant in alternation after an optional system turn,
skips others with a warning, and learns earlier answers of a conversation too unless ``mask_history`` is true.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from zpd_ray.errors import ZpdError
from zpd_ray.export.base import Rows
from zpd_ray.export.conversations import check_plain
from zpd_ray.export.files import LINES, check_filled, write_lines

NAME = "zpd_ray"
INFO = {
    NAME: {
        "file_name": LINES,
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    }
}


class LlamaFactory:
    """train.jsonl with ``messages``, and dataset_info.json."""

    needs = ()
    hint = (
        f"dataset_dir: {{into}}, dataset: {NAME}, mask_history: true (which trains on the last answer alone)"
    )

    def write(self, rows: Rows, directory: Path) -> None:
        """Both files. Raises ZpdError for turns that it would skip."""

        def convert(row: dict[str, Any]) -> dict[str, Any]:
            messages = [*row["prompt"], *row["completion"]]
            _check_alternating(row["item_id"], messages)
            return {"item_id": row["item_id"], "messages": messages} | {k: row[k] for k in rows.carried}

        def check(table: pa.Table) -> None:
            check_filled(table, "completion", "llama-factory")
            check_plain(table, "llama-factory")

        write_lines(rows, directory, convert, check)
        (directory / "dataset_info.json").write_text(json.dumps(INFO, indent=2) + "\n")


def _check_alternating(item_id: str, messages: list[dict[str, str]]) -> None:
    roles = [turn["role"] for turn in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    if turns != ["user", "assistant"] * (len(turns) // 2) or not turns:
        raise ZpdError(
            "LLaMA-Factory skips what is not turns of user and assistant in alternation; item "
            f"{item_id!r} has {', '.join(roles)}; export to trl or axolotl"
        )
