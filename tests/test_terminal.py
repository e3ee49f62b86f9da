"""What a command shows: on a screen, in a log, quietly, as JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.cli.screen import lines, watch
from zpd_ray import terminal as progress


def test_a_log_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    clock = iter([0.0, 30.0, 60.0, 90.0, 130.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(progress._state, "said", 0.0)
    monkeypatch.setattr(progress, "say", said.append)
    log = progress._Log("measuring", 12_000)
    for _ in range(4):
        log.advance(1_500)
    assert said == [
        "measuring: 3,000 of 12,000, 3 min left, 50/s",
        "measuring: 6,000 of 12,000, 2 min left, 46/s",
    ]


def test_work_that_does_not_move_is_told_of_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.2)
    monkeypatch.setattr(progress, "say", said.append)
    with progress.progress("measuring stage 0", 40) as advance:
        time.sleep(0.5)
        advance(1)
        time.sleep(0.5)
    assert said[0].startswith("measuring stage 0: none of 40 yet, after ")
    assert said[-1].startswith("measuring stage 0: 1 of 40, ")
    told = len(said)
    assert 4 <= told <= 8
    time.sleep(0.3)
    assert len(said) == told  # its end is the end of the lines


def test_slow_work_is_told_in_seconds_per_item() -> None:
    assert [progress._rate(rate) for rate in (1234.5, 1.0, 0.25)] == ["1,234/s", "1/s", "4.0 s each"]


def test_work_without_an_end_in_sight_has_no_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "say", said.append)
    log = progress._Log("reading", None)
    log.advance(0)
    log.advance(7)
    assert said[0].startswith("reading: none yet, after ")
    assert said[1].startswith("reading: 7, ")


def test_a_log_hears_of_work_that_tells_nothing_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, between and after pieces of work with a progress of their own no gap is longer than allowed."""
    said: list[tuple[float, str]] = []
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.8)
    monkeypatch.setattr(progress.console, "print", lambda text, **_: said.append((time.monotonic(), text)))
    begun = time.monotonic()
    with progress.alive("starting"):
        time.sleep(2.0)
        progress.doing("stage 0: measure")
        time.sleep(0.5)
        with progress.progress("measuring stage 0", 40):
            time.sleep(2.0)
        time.sleep(2.0)
    ended = time.monotonic()
    at = [begun, *(moment for moment, _ in said), ended]
    # Twice the time: a machine may be busy with something else. Each of the long sleeps is longer.
    assert max(later - before for before, later in pairwise(at)) < 2 * 0.8
    texts = [text for _, text in said]
    assert texts[0].startswith("starting: ")
    assert any(text.startswith("stage 0: measure: ") for text in texts)
    assert any(text.startswith("measuring stage 0: none of 40 yet") for text in texts)
    time.sleep(0.9)
    assert len(said) == len(texts)


def test_a_short_command_tells_a_log_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.alive("starting"):
        progress.doing("checking")
    assert capsys.readouterr() == ("", "")


def test_quiet_leaves_warnings_and_results(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.05)
    with progress.quietly(), progress.alive("starting"):
        progress.say("  note: nothing to worry about")
        with progress.progress("measuring", 10) as advance:
            time.sleep(0.2)
            advance(10)
        progress.warn("do not trust theta")
        progress.show({"theta": 1.0}, lambda result: print(result["theta"]))
    assert capsys.readouterr() == ("1.0\n", "warning: do not trust theta\n")
    progress.say("on again")
    assert capsys.readouterr().err == "on again\n"


def test_json_is_all_that_stdout_gets(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.in_json():
        print("a grader of the user's has something to say")
        progress.say("starting Ray")
        progress.show({"theta": float("nan"), "stages": [1]}, lambda result: print("drawn"))
    told = capsys.readouterr()
    assert json.loads(told.out) == {"theta": None, "stages": [1]}
    assert told.out.count("\n") == 1
    assert told.err == "a grader of the user's has something to say\nstarting Ray\n"
    progress.show(1, lambda result: print("drawn"))
    assert capsys.readouterr().out == "drawn\n"


def test_an_error_is_a_sentence_and_with_json_an_object_too(capsys: pytest.CaptureFixture[str]) -> None:
    progress.show_error("what, got, do this")
    assert capsys.readouterr() == ("", "zpd-ray: what, got, do this\n")
    with progress.in_json():
        progress.show_error("what, got, do this")
    told = capsys.readouterr()
    assert json.loads(told.out) == {"error": "what, got, do this"}
    assert told.err == "zpd-ray: what, got, do this\n"


HERE = Path(__file__).parents[1]
HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"  # the cursor
COMMAND = """
import sys, threading, time
from zpd_ray.cli.interrupts import ended_by_signals
from zpd_ray.cli.options import exit_code
from zpd_ray.errors import ZpdError
from zpd_ray.terminal import alive, doing, progress, say, show

def bar(what, seconds):
    with progress(what, 2) as advance:
        time.sleep(seconds)
        advance(2)

def work():
    with alive("starting"):
        time.sleep(1.2)
        say("starting Ray")
        doing("stage 0: measure")
        other = threading.Thread(target=bar, args=("training", 1.5))
        other.start()
        bar("measuring", 1.0)
        other.join()
        doing("stage 0: fit")
        time.sleep(1.2)
        show("the table", print)
        doing("ending")
        time.sleep(1.2)
        raise ZpdError("mend this")

with ended_by_signals():
    code = exit_code(work)
sys.exit(code)
"""


def test_on_a_screen_something_moves_all_the_time_and_nothing_is_garbled() -> None:
    seen = watch([sys.executable, "-c", COMMAND], HERE, {"PYTHONPATH": str(HERE)})
    assert seen.code == 2
    told = [line.split("\u2501")[0].strip() for line in lines(seen.text) if line]
    assert told[0] == "starting Ray"
    assert sorted(told[1:3]) == ["measuring", "training"]
    assert told[3:] == ["the table", "zpd-ray: mend this"]
    length, begin = seen.silences[0]
    assert length <= 2.0, f"nothing moved for {length:.1f} s from {begin:.1f} s"
    for what in ("starting", "stage 0: fit", "ending"):
        assert seen.text.count(f"{what} ") >= 3
    assert seen.text.rindex(SHOWN) > seen.text.rindex(HIDDEN)


@pytest.mark.parametrize("during", ["starting ", "measuring "])
def test_a_signal_gives_the_screen_back(during: str) -> None:
    struck: list[int] = []

    def strike(pid: int, text: str) -> None:
        if during in text and not struck:
            struck.append(pid)
            os.kill(pid, signal.SIGINT)

    seen = watch([sys.executable, "-c", COMMAND], HERE, {"PYTHONPATH": str(HERE)}, strike)
    assert struck
    assert seen.code == 130
    assert [line for line in lines(seen.text) if line][-1] == (
        "zpd-ray: interrupted; run the same command again to resume"
    )
    assert seen.text.rindex(SHOWN) > seen.text.rindex(HIDDEN)
    assert not any("starting 0:" in line for line in lines(seen.text))


def test_a_log_with_colours_is_still_a_log() -> None:
    """CI systems set FORCE_COLOR; a spinner there would fill the log."""
    code = "import time; from zpd_ray.terminal import alive\nwith alive('starting'): time.sleep(1)"
    env = {**os.environ, "PYTHONPATH": str(HERE), "FORCE_COLOR": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True, timeout=60)
    assert done.stderr == b""


def test_a_note_stands_below_the_bars_and_does_not_stay(tmp_path: Path) -> None:
    code = """
import time
from zpd_ray.terminal import alive, note, progress
with alive("starting"):
    with progress("measuring", 2) as advance:
        note("run: about 12 min")
        time.sleep(0.5)
        advance(2)
    time.sleep(0.3)
"""
    watched = watch([sys.executable, "-c", code], HERE)
    assert watched.code == 0
    assert "run: about 12 min" in watched.text
    left = lines(watched.text)
    assert any(line.startswith("measuring ") for line in left)
    assert not any("run: about 12 min" in line for line in left)
