"""JSON lines, for whatever reads text: ``extra`` is an object here, as it was in the row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zpd_ray.export.base import Rows
from zpd_ray.export.files import PLAIN, TOOLS, write_lines


class Jsonl:
    """The columns of the item, and what is carried."""

    needs = ()
    hint = ""

    def write(self, rows: Rows, directory: Path) -> None:
        """train.jsonl."""

        def convert(row: dict[str, Any]) -> dict[str, Any]:
            told = {name: row[name] for name in (*PLAIN, TOOLS, *rows.carried) if name in row}
            if told.get("extra"):
                told["extra"] = json.loads(told["extra"])
            return told

        write_lines(rows, directory, convert)
