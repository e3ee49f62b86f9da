"""A dataset on disk, as ``datasets.load_from_disk`` takes it.

https://huggingface.co/docs/datasets/process#save: arrow files with state.json and dataset_info.json, written
by ``Dataset.save_to_disk``, from parquet files that it maps into memory rather than reads.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from zpd_ray.export.base import Rows
from zpd_ray.export.parquet import Parquet


class Hf(Parquet):
    """The same columns as ``parquet``."""

    hint = 'datasets.load_from_disk("{into}")'

    def write(self, rows: Rows, directory: Path) -> None:
        """By way of parquet files that are removed again."""
        import datasets

        with TemporaryDirectory(dir=directory.parent, prefix=f"{directory.name}.") as scratch:
            super().write(rows, Path(scratch))
            files = sorted(map(str, Path(scratch).glob("*.parquet")))
            loaded = datasets.Dataset.from_parquet(files, cache_dir=f"{scratch}/cache", split="train")
            loaded.save_to_disk(str(directory))
