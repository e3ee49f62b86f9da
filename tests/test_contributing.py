"""CONTRIBUTING.md shows the files that tests/pipeline/test_own_parts.py runs, and names what is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from zpd_ray.registry import Registry

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PARTS = ROOT / "examples" / "own_parts"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_every_file_is_shown_as_it_is() -> None:
    files = sorted(path for path in PARTS.glob("*.py") if path.stem != "pool")  # which makes the data
    assert sorted(blocks("python")) == sorted(path.read_text(encoding="utf-8") for path in files)
    assert blocks("toml") == [(PARTS / "run.toml").read_text(encoding="utf-8")]


def test_the_table_of_registries_is_true() -> None:
    rows = re.findall(r"^\|.*`zpd_ray/(\w+)/` \| `([A-Z]+)` \| .*?`(\w+)\.(\w+)`", PAGE, flags=re.MULTILINE)
    assert len(rows) == 6
    for directory, registry, module, protocol in rows:
        package = importlib.import_module(f"zpd_ray.{directory}")
        assert isinstance(getattr(package, registry), Registry)
        assert directory == module
        assert isinstance(getattr(package, protocol), type)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)h][^)]*)\)", PAGE))))
def test_linked_files_exist(link: str) -> None:
    assert (ROOT / link).exists()
