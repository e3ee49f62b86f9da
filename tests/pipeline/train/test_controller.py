"""The stage controller without Ray: what workers and driver are told, whatever was lost."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from zpd_ray import ray_folder
from zpd_ray.config_file import validate
from zpd_ray.engines import ModelRef
from zpd_ray.pipeline.train import controller
from zpd_ray.pipeline.train.controller import WORKER_FAILURES, Controller, StageStatus, StageTask
from zpd_ray.rundir.store import Store


def task(stage: int) -> StageTask:
    config = validate(
        {"output": "x", "pool": {"path": "x"}, "model": {"path": "x"}, "select": {"budget": {"items": 1}}}
    )
    model, directory = ModelRef("x", None, stage), f"stages/{stage:02d}"
    return StageTask(config, Store("x"), model, directory, 1, [1], [None], turn=stage)


def play(*calls: tuple[str, Any]) -> list[Any]:
    """The answers of one controller to calls in turn."""

    async def talk() -> list[Any]:
        controller = Controller()
        return [await getattr(controller, name)(*arguments) for name, *arguments in calls]

    return asyncio.run(talk())


def test_every_worker_gets_the_stage_that_is_open_and_none_at_the_end() -> None:
    first = task(0)
    answers = play(
        ("publish", first), ("next_stage", 0, -1), ("next_stage", 1, -1), ("close",), ("next_stage", 1, 0)
    )
    assert answers == [None, first, first, None, None]


def test_workers_wait_for_the_next_stage_and_that_is_counted() -> None:
    async def talk() -> tuple[StageTask | None, StageStatus]:
        controller = Controller()
        await controller.publish(task(0))
        await asyncio.sleep(0.1)
        await controller.next_stage(0, -1)
        first = await controller.status(0)
        assert first.waited is None
        assert first.starting is not None
        assert 0.1 <= first.starting < 5
        waiting = asyncio.create_task(controller.next_stage(0, 0))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        assert (await controller.status(0)).finished
        await controller.publish(task(1))
        return await waiting, await controller.status(1)

    got, status = asyncio.run(talk())
    assert got is not None
    assert got.model.stage == 1
    assert status.known
    assert not status.finished
    assert status.starting is None
    assert status.waited is not None
    assert 0.2 <= status.waited < 5


def test_a_restarted_controller_asks_for_the_stage_and_learns_from_the_worker_that_it_is_finished() -> None:
    assert play(("status", 3))[0].known is False
    answers = play(("publish", task(4)), ("next_stage", 0, 3), ("status", 3), ("status", 4))
    assert answers[2].finished
    assert not answers[3].finished


@pytest.mark.parametrize(
    ("calls", "told"),
    [
        (
            [(0, 1)],
            "worker 0 waits in its stage.save_checkpoint number 1 for worker 1, whose last was",
        ),
        ([(0, 1), (1, 1)], ""),
        (
            [(0, 1), (1, 1), (1, 2)],
            "worker 1 waits in its stage.save_checkpoint number 2 for worker 0",
        ),
    ],
)
def test_a_worker_that_others_wait_for_in_a_checkpoint_is_told(
    monkeypatch: pytest.MonkeyPatch, calls: list[tuple[int, int]], told: str
) -> None:
    shared, saving = replace(task(0), rows=[1, 1]), [("report_saving", *call) for call in calls]
    begun: list[tuple[Any, ...]] = [("publish", shared), ("next_stage", 0, -1), ("next_stage", 1, -1)]
    assert play(*begun, *saving, ("status", 0))[-1].absent == ""  # they may be about to come
    monkeypatch.setattr(controller, "WAIT_SECONDS", 0.0)
    assert play(*begun, *saving, ("status", 0))[-1].absent[: len(told) or None] == told
    anew = [("next_stage", rank, -1) for rank in (1, 0)]
    assert play(*begun, *saving, *anew, ("status", 0))[-1].absent == ""


def test_telling_it_twice_changes_nothing() -> None:
    answers = play(("publish", task(0)), ("report_rows", 7), ("publish", task(0)), ("status", 0))
    assert answers[-1].rows == 7


def test_a_stage_whose_workers_keep_dying_fails_with_the_error_of_one() -> None:
    tries = [("next_stage", 0, -1)] * (1 + WORKER_FAILURES)
    answers = play(
        ("publish", task(0)),
        *tries,
        ("status", 0),
        ("report_error", "KeyError: 'x'"),
        ("next_stage", 0, -1),
        ("status", 0),
    )
    assert all(answers[1 : 2 + WORKER_FAILURES])
    assert answers[2 + WORKER_FAILURES].failure == ""
    assert answers[-2] is None
    assert answers[-1].failure == f"its workers died {1 + WORKER_FAILURES} times; one said: KeyError: 'x'"


def test_where_no_worker_could_say_why_the_logs_of_our_own_ray_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_folder, "_folder", None)
    monkeypatch.setenv(ray_folder.LOGS_VARIABLE, "/tmp/zpd-x/logs")
    answers = play(("publish", task(0)), *[("next_stage", 0, -1)] * (2 + WORKER_FAILURES), ("status", 0))
    assert answers[-1].failure.endswith("times; see the Ray logs in /tmp/zpd-x/logs")


def test_failures_are_counted_stage_by_stage() -> None:
    tries = [("next_stage", 0, -1)] * (1 + WORKER_FAILURES)
    answers = play(("publish", task(0)), *tries, ("publish", task(1)), *tries, ("status", 1))
    assert answers[-1].failure == ""


def test_nodes_that_were_taken_away_with_notice_are_no_failures() -> None:
    taken = [("next_stage", 0, -1), ("report_preemption",), ("report_preemption",)] * 5
    dying = [("next_stage", 0, -1)] * (1 + WORKER_FAILURES)
    answers = play(("publish", task(0)), *taken, *dying, ("status", 0), ("next_stage", 0, -1), ("status", 0))
    assert answers[-3].failure == ""
    assert answers[-1].failure.startswith(f"its workers died {1 + WORKER_FAILURES} times")


def test_a_file_of_a_checkpoint_belongs_to_one_worker_of_a_stage() -> None:
    answers = play(
        ("publish", task(0)),
        ("claim", 0, ["a", "b"]),
        ("claim", 1, ["b", "c"]),
        ("claim", 0, ["a", "b"]),  # at the next checkpoint, or after it was started anew
        ("publish", task(1)),
        ("claim", 1, ["b"]),
    )
    assert answers == [None, {}, {"b": 0}, {}, None, {}]
