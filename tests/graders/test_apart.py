"""A user's grader in a process of its own: the same verdicts, and whatever it does is named."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from zpd_ray.errors import ZpdError
from zpd_ray.graders.apart import Apart

MODULE = """
import os, re, subprocess, sys, time
from zpd_ray.graders import Verdict
from zpd_ray.graders.base import CompletionGrader

def same(completion, answer):
    print("what a grader prints is no answer")
    return completion == answer

def share(completion, item):
    return item["extra"]["share"]

def hangs(completion, answer):
    time.sleep(60 if completion == "wait" else 0)
    return True

def stuck(completion, answer):
    return bool(re.match(r"(a|aa)+$", "a" * 60 + "b"))  # for years, without a look at other threads

def starts(completion, answer):
    subprocess.Popen(["sleep", "600"])
    os._exit(4)

def leaves(completion, answer):
    os._exit(3)

def fails(completion, answer):
    return 1 / 0

class Sevens(CompletionGrader):
    def accepts(self, answer, choices):
        return None
    def grade(self, completion, answer, choices):
        return Verdict(7.0, parsed=True)

class Halves(CompletionGrader):
    def accepts(self, answer, choices):
        return None
    def grade(self, completion, answer, choices):
        return Verdict(0.5, parsed=completion != "")
"""


@pytest.fixture
def grader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A grader of that module by its function's name."""
    name = f"apart_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    beats: list[int] = []

    def make(function: str, patience: float = 30.0) -> Apart:
        made = Apart(f"{name}:{function}", patience, lambda: beats.append(1))
        make.beats = beats
        return made

    return make


def item(number: int, **fields: Any) -> dict[str, Any]:
    return {"item_id": f"item {number}", "answer": "4", "choices": None, "extra": None} | fields


def test_functions_and_classes_grade_as_in_this_process(grader: Any) -> None:
    same = grader("same")
    for _ in range(2):  # the process stays up
        assert same.verdicts([["4", "5"], [], ["4"]], [item(0), item(1), item(2)]) == [
            [(1.0, True), (0.0, True)],
            [],
            [(1.0, True)],
        ]
    assert len(grader.beats) == 6 + 1  # and one when the process had started
    assert grader("share").verdicts([["x"]], [item(0, extra='{"share": 0.25}')]) == [[(0.25, True)]]
    assert grader("Halves").verdicts([["x", ""]], [item(0)]) == [[(0.5, True), (0.5, False)]]


def test_texts_of_any_length_and_kind_arrive(grader: Any) -> None:
    text = '\u2028\ud83d\ude00 "\\\n' * 100_000
    verdicts = grader("same").verdicts([[text, "4"]] * 3, [item(0, answer=text)] * 3)
    assert verdicts == [[(1.0, True), (0.0, True)]] * 3


def processes() -> set[int]:
    return {
        child.pid for child in psutil.Process().children() if "graders.child" in " ".join(child.cmdline())
    }


def test_one_that_hangs_is_ended_and_named(grader: Any) -> None:
    hanging, started, before = grader("hangs", patience=6.0), time.monotonic(), processes()
    with pytest.raises(
        ZpdError, match=r"hangs took longer than measure.patience = 6 s over item 'item 1' and"
    ):
        hanging.verdicts([["go"], ["wait"]], [item(0), item(1)])
    assert time.monotonic() - started < 30
    assert processes() <= before
    assert hanging.verdicts([["go"]], [item(0)]) == [[(1.0, True)]]  # by another process


def test_one_that_ends_its_process_is_named(grader: Any) -> None:
    with pytest.raises(
        ZpdError, match=r"leaves ended its process \(exit code 3\) over item 'item 0' .* printed"
    ):
        grader("leaves").verdicts([["x"]], [item(0)])


def test_what_it_raises_is_told_as_in_this_process(grader: Any) -> None:
    with pytest.raises(ZpdError, match="fails raised ZeroDivisionError"):
        grader("fails").verdicts([["x"]], [item(0)])
    with pytest.raises(ZpdError, match="nearest are"):
        grader("absent").verdicts([["x"]], [item(0)])


def _sleeping() -> bool:
    return any(each.info["cmdline"] == ["sleep", "600"] for each in psutil.process_iter(["cmdline"]))


def test_what_it_has_started_ends_with_it_and_does_not_hold_the_pipe_open(grader: Any) -> None:
    started = time.monotonic()
    with pytest.raises(ZpdError, match=r"starts ended its process \(exit code 4\)"):
        grader("starts", patience=60.0).verdicts([["x"]], [item(0)])
    assert time.monotonic() - started < 50
    while _sleeping():  # killed, which takes a moment
        assert time.monotonic() - started < 50
        time.sleep(0.1)


def test_a_share_of_seven_is_refused(grader: Any) -> None:
    with pytest.raises(ZpdError, match=r"Sevens gave the share 7.0; expected one from 0 to 1"):
        grader("Sevens").verdicts([["x"]], [item(0)])


@pytest.mark.nightly
def test_one_that_is_stuck_does_not_outlive_a_process_that_is_killed(grader: Any) -> None:
    name = grader("stuck")._name
    code = (
        "import sys, threading, os\nfrom zpd_ray.graders.apart import Apart\n"
        f"threading.Timer(4, lambda: os._exit(0)).start()\nApart({name!r}, 5.0, lambda: None)"
        ".verdicts([['x']], [{'item_id': 'a', 'answer': '', 'choices': None, 'extra': None}])"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    deadline = time.monotonic() + 40
    while left := [p for p in psutil.process_iter(["cmdline"]) if name in (p.info["cmdline"] or [])]:
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
