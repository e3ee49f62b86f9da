"""README is the truth: its code runs, its config loads, its commands and files exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from zpd_ray.compare.file import load_comparison
from zpd_ray.config_file import load_config

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_python_blocks_run() -> None:
    code = "\n".join(blocks("python"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_config_loads(tmp_path: Path) -> None:
    (config,) = blocks("toml")
    (tmp_path / "run.toml").write_text(config)
    assert load_config(str(tmp_path / "run.toml")).select.budget.fraction == 0.05
    assert load_config(str(tmp_path / "run.toml"), ["select.budget.items=5000"]).select.budget.items == 5000


def test_the_comparison_loads() -> None:
    """It is made, in small, by tests/compare/test_compare.py."""
    (command,) = (block for block in blocks("bash") if block.startswith("zpd-ray compare"))
    _, _, path, *options = shlex.split(command)
    comparison = load_comparison(str(ROOT / path), options[1::2])
    assert (comparison.seeds, comparison.budgets, comparison.tune) == ([0], [0.15], {})


def test_make_targets_are_those_that_ci_runs() -> None:
    named = set(re.findall(r"^make (\w+)", "\n".join(blocks("bash")), flags=re.MULTILINE))
    run_by_ci = set(re.findall(r"^make (\w+)", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE))
    assert named == run_by_ci == {"quickstart", "test"}


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)h][^)]*)\)", README))
def test_linked_files_exist(link: str) -> None:
    assert (ROOT / link.partition("#")[0]).exists()
