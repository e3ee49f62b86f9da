"""docs/reference/tables.md tells the columns of every export format."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS
from tests.taken import lines_of
from zpd_ray.export import FORMATS
from zpd_ray.export.exporting import export_selection
from zpd_ray.rundir import Run

SECTION = (DOCS / "reference/tables.md").read_text(encoding="utf-8").partition("## Exported files")[2]
TOLD = re.findall(r"^\| `([\w-]+)` \| (.*?) \| (.*?) \|$", SECTION, flags=re.MULTILINE)


def test_every_format_is_told() -> None:
    assert [name for name, _, _ in TOLD] == list(FORMATS)


@pytest.mark.parametrize(("name", "files", "columns"), TOLD, ids=[name for name, _, _ in TOLD])
def test_files_and_columns(taken: Run, tmp_path: Path, name: str, files: str, columns: str) -> None:
    export_selection(taken, name, str(tmp_path / "out"), 0, None, scores=False, extra=False)
    assert columns_in(tmp_path / "out") == set(re.findall(r"`(\w+)`", columns))
    assert {file.name for file in (tmp_path / "out").iterdir()} >= set(re.findall(r"`([\w.]+)`", files))


def columns_in(directory: Path) -> set[str]:
    """Names of the columns of what was exported, whatever kind of file it is."""
    import datasets

    if (lines := directory / "train.jsonl").exists():
        return set(lines_of(lines)[0])
    if (directory / "state.json").exists():
        return set(datasets.load_from_disk(str(directory)).column_names)
    files = sorted(map(str, directory.glob("*.parquet")))
    return set(datasets.Dataset.from_parquet(files, cache_dir=str(directory / "cache")).column_names)
