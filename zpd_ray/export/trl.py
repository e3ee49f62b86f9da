"""TRL's SFTTrainer: conversational prompt-completion rows, of which it trains on the completion alone.

https://huggingface.co/docs/trl/dataset_formats#prompt-completion: ``prompt`` and ``completion`` are lists of
messages with ``role`` and ``content``, and ``tool_calls`` where there are some; other columns do no harm, and
``tools`` may be JSON in a text.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from zpd_ray.export.base import Rows
from zpd_ray.export.files import TOOLS, check_filled, those, write_parquet


class Trl:
    """Parquet files with ``prompt`` and ``completion``."""

    needs = ()
    hint = 'train_dataset=datasets.load_dataset("{into}", split="train") for trl.SFTTrainer'

    def write(self, rows: Rows, directory: Path) -> None:
        """A file per file of the selection."""

        def convert(table: pa.Table) -> pa.Table:
            check_filled(table, "completion", "trl")
            return those(table, ["item_id", "prompt", "completion", TOOLS, *rows.carried])

        write_parquet(rows, directory, convert)
