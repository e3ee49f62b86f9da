"""Bad input is answered by the sentence that docs/bad_inputs.md shows: never silence, never a traceback."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny
from tests.bad_inputs.cases import CASES, Case, Desk
from tests.bad_inputs.table import PAGE, Outcome, outcome
from zpd_ray.rundir.layout import LOCK, PROGRESS

CPU_SECONDS = 2.0  # of a command that reads neither model nor pool: what it takes on an idle machine
# Groups whose commands read a model, many rows, or start a Ray.
READS = {"The model", "What a row is", "What a file is", "Prompts alone", "While it works", "The budget"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_model(tmp_path_factory.mktemp("llama"), layers=1)


def rows_of_the_page() -> dict[tuple[str, str], str]:
    """What is said, by group and what was done."""
    rows, group = {}, ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            group = line[3:]
        elif line.startswith("| ") and line != "| done | said |":
            did, told = line[2:-2].split(" | ", 1)
            rows[group, did] = told
    return rows


def names(cases: list[Case]) -> list[str]:
    return [f"{case.group}: {case.did}" for case in cases]


def test_the_page_holds_every_case_once() -> None:
    assert len(CASES) >= 100
    assert sorted(rows_of_the_page()) == sorted((case.group, case.did) for case in CASES)


def check(case: Case, tmp_path: Path, model: Path) -> Outcome:
    seen = outcome(case, tmp_path, model)
    assert seen.said == rows_of_the_page()[case.group, case.did]
    assert seen.said
    assert "raceback" not in seen.said
    assert seen.code == 2 or seen.said.startswith(("quarantine: ", "note: "))
    return seen


ALONE = [case for case in CASES if not case.ray]


@pytest.mark.parametrize("case", ALONE, ids=names(ALONE))
def test_what_is_said_without_ray(case: Case, tmp_path: Path, model: Path) -> None:
    written = check(case, tmp_path, model).written
    assert not written or {path.name for path in written} <= {LOCK, PROGRESS, "quarantine"}


WITH_RAY = [case for case in CASES if case.ray]


@pytest.mark.parametrize("case", WITH_RAY, ids=names(WITH_RAY))
def test_what_is_said_with_ray(case: Case, tmp_path: Path, model: Path, local_ray: None) -> None:
    check(case, tmp_path, model)


QUICK = [case for case in ALONE if case.group not in READS]


@pytest.mark.nightly
@pytest.mark.parametrize("case", QUICK, ids=names(QUICK))
def test_it_is_said_within_two_seconds(case: Case, tmp_path: Path, model: Path) -> None:
    """Of processor time, in a process of its own: the wall clock of a busy machine says little."""
    desk = Desk(tmp_path, model)
    case.do(desk)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "zpd_ray", *desk.arguments()]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < CPU_SECONDS
