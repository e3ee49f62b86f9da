"""TRL's GRPOTrainer: prompts without completions; every other column goes to the reward functions.

https://huggingface.co/docs/trl/grpo_trainer and dataset_formats#prompt-only: the dataset must have
``prompt``; a reward function gets each further column under its name, a value per completion. TRL's own
``accuracy_reward`` calls the gold answer ``solution``: ``dataset.rename_column("answer", "solution")``.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from zpd_ray.export.base import Rows
from zpd_ray.export.files import TOOLS, those, write_parquet

OWN = ("item_id", "prompt", "answer", "pass_rate")


class TrlGrpo:
    """Parquet files with ``prompt``, ``answer`` and ``pass_rate``, the share right that was measured."""

    needs = ("pass_rate",)
    hint = 'train_dataset=datasets.load_dataset("{into}", split="train") for trl.GRPOTrainer'

    def write(self, rows: Rows, directory: Path) -> None:
        """A file per file of the selection; answers may be null, for rewards that need none."""

        def convert(table: pa.Table) -> pa.Table:
            return those(table, [*OWN, TOOLS, *rows.carried])

        write_parquet(rows, directory, convert)
