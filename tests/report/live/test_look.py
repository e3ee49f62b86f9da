"""What a run directory tells of a run: at work, done, failed, killed, not begun."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.report.live.conftest import Working, seen
from zpd_ray.at_work import Doing
from zpd_ray.report.live.history import BAND
from zpd_ray.report.live.look import FAILED, FINISHED, KILLED, NOT_BEGUN, RUNNING, STOPPED, Look, state_of
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import EVALUATE, FIT, MEASURE, PROGRESS, SELECT
from zpd_ray.rundir.progress import Progress
from zpd_ray.rundir.records import load_events, load_fit, load_selection


def test_a_run_at_work_and_one_that_was_killed(begun: Path, working: Working) -> None:
    look = Look(str(begun))
    seen(look, lambda live: bool(live.doing))
    working.tell("300")
    seen(look, lambda live: bool(live.doing and live.doing[0].done == 300))
    working.tell("100")
    live = seen(look, lambda live: bool(live.doing and live.doing[0].done == 400))
    [doing] = live.doing
    assert (live.state, live.exit_code, live.count) == (RUNNING, None, 2)
    assert f"process {working.process.pid} " in live.told
    assert (doing.step, doing.stage, doing.what, doing.total) == ("measure", 1, "measuring stage 1", 1500)
    assert live.last_sign is not None
    assert live.last_sign < 10
    assert doing.rate is not None
    assert doing.left == pytest.approx(1100 / doing.rate)
    pool = look.store.read_json("pool.json")
    per_item = (pool["prompt_tokens"] + pool["response_tokens"]) / pool["items"]
    assert doing.tokens_per_second == pytest.approx(doing.rate * per_item)
    # What the other steps took at stage 0; it is the last stage.
    took = {event.step: event.seconds or 0.0 for event in load_events(look.store) if event.stage == 0}
    rest = sum(took[step.name] for step in (FIT, SELECT, EVALUATE))
    assert live.stage_left == live.run_left == pytest.approx(doing.left + rest)
    working.process.kill()
    working.process.wait()
    live = look.now()
    assert (live.state, live.exit_code, live.doing) == (KILLED, 2, [])
    assert "the lock is free" in live.told
    assert live.stages[0].theta is not None


def test_a_run_that_failed_and_one_that_stopped_where_it_was_told_to(begun: Path, working: Working) -> None:
    working.tell("fail")
    assert working.process.wait() == 1  # no command line is there to make it 2
    live = Look(str(begun)).now()
    assert (live.state, live.exit_code) == (FAILED, 2)
    assert live.told.endswith("the disk is full; free some space")
    again = Working(begun)
    again.tell("end")
    assert again.process.wait() == 0
    live = Look(str(begun)).now()
    assert (live.state, live.exit_code) == (STOPPED, 0)
    assert "`zpd-ray measure` is done" in live.told


def test_a_finished_run_has_all_that_came_of_it(taken: Run) -> None:
    store = taken.store
    live = Look(store.root).now()
    assert (live.state, live.exit_code, live.stage_left, live.run_left) == (FINISHED, 0, 0.0, 0.0)
    last = load_fit(store, 1).ability
    for stage, each in enumerate(live.stages):
        at, chosen = last.at(stage), load_selection(store, f"stages/{stage:02d}")
        assert (each.stage, each.theta, each.se) == (stage, at.theta, at.se)
        assert each.band == pytest.approx((at.theta - BAND * at.se, at.theta + BAND * at.se))
        assert (each.selected, each.p_mean) == (chosen.selected, chosen.mean_p)
        assert each.seconds.keys() == {MEASURE.name, FIT.name, SELECT.name, EVALUATE.name}
    assert len(live.stages) == 2
    assert live.cost == live.stages[0].cost + live.stages[1].cost


@pytest.mark.parametrize("name", ["nowhere", "empty", "others"])
def test_a_run_that_has_not_begun_and_nothing_is_made_by_looking(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "letter.txt").write_text("dear")
    before = sorted(tmp_path.rglob("*"))
    live = Look(str(tmp_path / name)).now()
    assert (live.state, live.exit_code, live.run_left, live.stages) == (NOT_BEGUN, None, None, [])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_of_an_earlier_version_has_no_record(taken: Run, begun: Path) -> None:
    assert Look(str(begun)).now().state == KILLED
    finished = begun.parent / "finished"
    shutil.copytree(taken.store.root, finished)
    (finished / PROGRESS).unlink()
    assert Look(str(finished)).now().state == FINISHED


def test_what_ended_is_read_when_it_has_ended(taken: Run, begun: Path) -> None:
    look = Look(str(begun))
    assert len(look.now().stages) == 1
    shutil.copytree(Path(taken.store.root) / "stages" / "01", begun / "stages" / "01")
    shutil.copy(Path(taken.store.root) / "events.jsonl", begun)
    assert [stage.stage for stage in look.now().stages] == [0, 1]


AT = 1_000.0
RECORD = Progress("run", "here", 1, AT - 500, AT - 20, [Doing("measure", 0, AT - 100)])


@pytest.mark.parametrize(
    ("age", "exit_code", "state"),
    [
        (20.0, None, RUNNING),
        (59.0, None, RUNNING),
        (61.0, None, KILLED),
        (20.0, 2, FAILED),
        (999.0, 0, STOPPED),
    ],
)
def test_where_no_lock_can_be_seen_the_record_tells_by_its_age(
    age: float, exit_code: int | None, state: str
) -> None:
    record = replace(RECORD, at=AT - age, exit_code=exit_code)
    assert state_of(record, None, True, None, AT, every=10.0) == state


def test_a_lock_that_is_held_tells_more_than_an_old_record() -> None:
    """A process that was stopped (SIGSTOP), or an attempt of which only the lock is there yet."""
    assert state_of(replace(RECORD, at=AT - 999), True, True, None, AT, 2.0) == RUNNING
    assert state_of(replace(RECORD, exit_code=2), True, True, None, AT, 2.0) == RUNNING
    assert state_of(None, True, False, None, AT, 2.0) == RUNNING
    assert state_of(None, None, False, None, AT, 2.0) == NOT_BEGUN
