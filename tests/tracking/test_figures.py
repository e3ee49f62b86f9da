"""What trackers are told is what the files of a run say."""

from __future__ import annotations

import math

import pytest

from tests.tracking.conftest import LOSSES, TOKENS, MakeRun, expected, reopen
from zpd_ray.report.cost import costs
from zpd_ray.rundir.layout import EVALUATE, FIT, SELECT, TRAIN, StageFiles
from zpd_ray.rundir.records import load_events, load_fit, load_metrics, load_selection
from zpd_ray.tracking.figures import closed, figures


def test_what_a_stage_has_come_to(make_run: MakeRun) -> None:
    run = make_run()
    told, store = expected(run), run.store
    for stage, cost in enumerate(costs(run)):
        ability, chosen = load_fit(store, stage).ability, load_selection(store, StageFiles(stage).directory)
        assert told["ability/theta", stage] == ability.theta
        half = (told["ability/theta_high", stage] - told["ability/theta_low", stage]) / 2
        assert half == pytest.approx(1.96 * ability.se)
        assert told["selection/items", stage] == chosen.selected
        assert told["selection/mean_p", stage] == chosen.mean_p
        assert told["selection/in_zone", stage] == pytest.approx(1 - chosen.outside_zone / chosen.zone)
        assert told["cost/selecting_seconds", stage] == cost.selecting_seconds > 0
        assert told["cost/training_tokens", stage] == len(LOSSES[stage]) * TOKENS
        assert told["evaluation/accuracy", stage + 1] == load_metrics(store, stage).accuracy
        assert told["trained/train_nll", stage] == pytest.approx(sum(LOSSES[stage]) / len(LOSSES[stage]))
    assert told["evaluation/accuracy", 0] == load_metrics(store, None).accuracy
    assert not {"trained/why", "trained/fine"} & {key for key, _ in told}
    assert all(math.isfinite(value) for value in told.values())


def test_optimiser_steps_are_counted_over_the_run(make_run: MakeRun) -> None:
    told = expected(make_run())
    losses = [loss for stage in LOSSES for loss in stage]
    assert [told["train/loss", step] for step in range(len(losses))] == losses
    assert ("train/loss", len(losses)) not in told
    assert [told["train/tokens", step] for step in range(5)] == [TOKENS * (step + 1) for step in range(5)]
    assert (told["train/learning_rate", 2], told["train/learning_rate", 3]) == (1e-4, 5e-5)


def test_figures_are_of_the_time_when_their_step_ended(make_run: MakeRun) -> None:
    run = make_run()
    ended = {(event.step, event.stage): event.at for event in load_events(run.store)}
    for name in ("stage-00-0-fit", "stage-01-1-select", "stage-01-3-evaluate"):
        _, stage, _, step = name.split("-")
        assert {point.at for point in figures(run, name)} == {ended[step, int(stage)]}


def test_names_are_those_of_steps_that_have_closed_in_their_order(make_run: MakeRun) -> None:
    run = make_run()
    whole = closed(run)
    steps = ("0-fit", "1-select", "2-train", "3-evaluate")
    assert whole == ["base", *(f"stage-{stage:02d}-{step}" for stage in (0, 1) for step in steps)]
    assert sorted(whole) == whole
    for step in (EVALUATE, TRAIN, SELECT, FIT):
        reopen(run, 1, step.closes)
        whole.pop()
        assert closed(run) == closed(run, known=whole[:3]) == whole


def test_a_stage_that_was_trained_elsewhere_has_no_steps_and_the_next_goes_on(make_run: MakeRun) -> None:
    run = make_run()
    reopen(run, 0, "steps.parquet")
    run.store.write_json(StageFiles(0).closing(TRAIN), {"items": 60, "adopted": {"from": "elsewhere"}})
    told = expected(run)
    assert [told["train/loss", step] for step in range(len(LOSSES[1]))] == LOSSES[1]
    assert told["trained/items", 0] == 60
