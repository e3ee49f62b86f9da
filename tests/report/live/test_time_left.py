"""The time that a run has left, as a function of what it took so far."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zpd_ray.report.live.time_left import InHand, Plan, about, time_left, work_left

STEPS = ("measure", "fit", "select", "train", "evaluate")
seconds = st.floats(0.01, 1e5)
each_step = st.fixed_dictionaries({step: seconds for step in STEPS})
counts = st.integers(1, 10**9)


def done_before(took: dict[str, float], stage: int, step: int) -> dict[tuple[str, int], float]:
    """A run in which every stage's steps take the same, stopped before a step."""
    before = [(name, t) for t in range(stage) for name in STEPS] + [(name, stage) for name in STEPS[:step]]
    return {(name, t): took[name] for name, t in before}


@given(each_step, st.integers(1, 5), st.integers(1, 5), st.integers(0, 4), st.floats(0, 1))
def test_where_steps_repeat_it_is_the_rest(
    took: dict[str, float], stages: int, more: int, step: int, share: float
) -> None:
    past = done_before(took, stages, step)
    name, plan = STEPS[step], Plan(stages + more, STEPS)
    now = {(name, stages): InHand(share * took[name], (1 - share) * took[name])}
    left = time_left(plan, past, past.keys(), now, {})
    rest = (1 - share) * took[name] + sum(took[later] for later in STEPS[step + 1 :])
    assert left.stage == pytest.approx(rest)
    assert left.run == pytest.approx(rest + (more - 1) * sum(took.values()))
    # The same where the step tells no rate: then it is as long as it was.
    unseen = {(name, stages): InHand(share * took[name], None)}
    assert time_left(plan, past, past.keys(), unseen, {}).run == pytest.approx(left.run, rel=1e-6, abs=1e-6)


@given(counts, st.floats(1e-3, 1e6), st.data())
def test_work_left_falls_as_items_are_done_to_nothing(total: int, rate: float, data: st.DataObject) -> None:
    first, later = sorted(data.draw(st.tuples(st.integers(0, total), st.integers(0, total))))
    before, after = work_left(first, total, rate), work_left(later, total, rate)
    assert before is not None
    assert after is not None
    assert before >= after >= 0
    assert work_left(total, total, rate) == 0
    assert work_left(total + 1, total, rate) == 0  # never less than nothing
    assert work_left(0, total, rate) == pytest.approx(total / rate)


@given(each_step, counts, st.floats(1e-3, 1e6), st.data())
def test_what_a_first_stage_has_left_falls_as_its_items_are_done(
    guesses: dict[str, float], total: int, rate: float, data: st.DataObject
) -> None:
    """At a steady rate; the stages to come take as long as this one will have taken."""
    plan, figures = Plan(3, STEPS), []
    for done in sorted(data.draw(st.lists(st.integers(0, total), min_size=2, max_size=5))):
        now = {("measure", 0): InHand(done / rate, work_left(done, total, rate))}
        figures.append(time_left(plan, {}, (), now, {k: v for k, v in guesses.items() if k != "measure"}))
    for before, after in pairwise(figures):
        assert before.stage is not None
        assert before.run is not None
        assert after.stage <= before.stage * (1 + 1e-9)
        assert after.run <= before.run * (1 + 1e-9)
        assert after.run >= after.stage >= 0


@given(each_step, st.floats(2.5, 1e4), st.floats(0.1, 3.0), st.floats(0, 1))
def test_a_stage_that_measures_less_takes_less_and_those_after_it_go_by_it(
    took: dict[str, float], less: float, pace: float, share: float
) -> None:
    """Stage 0 measures ``less`` times as much as the others, which take ``pace`` times as long for it."""
    plan, rest = Plan(4, STEPS), sum(took.values()) - took["measure"]
    work = {("measure", stage): 1000.0 / (less if stage else 1.0) for stage in range(4)}
    past = done_before(took, 1, 0)
    left = time_left(plan, past, past.keys(), {}, {}, work)
    assert left.run == pytest.approx(3 * (rest + took["measure"] / less))
    second = pace * took["measure"] / less
    past |= done_before(took, 2, 0) | {("measure", 1): second}
    assert time_left(plan, past, past.keys(), {}, {}, work).run == pytest.approx(2 * (rest + second))
    # What stage 0 will have taken says the same before it has ended.
    now = {("measure", 0): InHand(share * took["measure"], (1 - share) * took["measure"])}
    guesses = {step: took[step] for step in STEPS[1:]}
    begun = time_left(plan, {}, (), now, guesses, work).run
    whole = (1 - share) * took["measure"] + rest + 3 * (rest + took["measure"] / less)
    assert begun == pytest.approx(whole)


@given(counts, counts, st.integers(0, 10**9), st.floats(1e-3, 1e6))
def test_what_a_step_counts_after_a_piece_of_work_is_left_too(
    total: int, more: int, before: int, rate: float
) -> None:
    whole = before + total + more
    assert work_left(0, total, rate, before, whole) == pytest.approx((total + more) / rate)
    assert work_left(total, total, rate, before, whole) == pytest.approx(more / rate)
    assert work_left(0, total, rate, before, 0.0) == pytest.approx(total / rate)  # it was more than expected


durations = st.none() | st.floats(0, 1e6)


@given(st.data(), st.integers(1, 4), st.booleans())
def test_it_is_never_negative(data: st.DataObject, stages: int, overlaps: bool) -> None:
    keys = [(step, stage) for stage in range(stages) for step in STEPS]
    took = data.draw(st.dictionaries(st.sampled_from(keys), st.floats(0, 1e6)))
    in_hand = st.builds(InHand, st.floats(0, 1e6), durations)
    now = data.draw(st.dictionaries(st.sampled_from(keys), in_hand, max_size=2))
    guesses = data.draw(st.dictionaries(st.sampled_from(STEPS), st.floats(0, 1e6)))
    left = time_left(Plan(stages, STEPS, "train" if overlaps else None), took, took.keys(), now, guesses)
    assert left.steps.keys() == now.keys()
    for value in (left.stage, left.run, *left.steps.values()):
        assert value is None or value >= 0


def test_nothing_known_is_said_and_one_unknown_step_is_enough() -> None:
    plan = Plan(2, STEPS)
    assert time_left(plan, {}, (), {}, {}).run is None
    now = {("measure", 0): InHand(10.0, 20.0)}
    known = {"fit": 0.0, "select": 0.0, "evaluate": 5.0}
    left = time_left(plan, {}, (), now, known)
    assert left.steps == {("measure", 0): 20.0}
    assert (left.stage, left.run) == (None, None)
    left = time_left(plan, {}, (), now, known | {"train": 100.0})
    assert (left.stage, left.run) == (125.0, 125.0 + 30.0 + 105.0)
    assert work_left(5, None, 2.0) is work_left(5, 10, None) is work_left(0, 0, 1.0) is None


def test_a_finished_run_has_nothing_left() -> None:
    past = done_before(dict.fromkeys(STEPS, 3.0), 2, 0)
    left = time_left(Plan(2, STEPS), past, past.keys(), {}, {})
    assert (left.stage, left.run) == (0.0, 0.0)


@given(each_step, st.integers(1, 5))
def test_stages_that_overlap_take_the_longer_of_both_sides(took: dict[str, float], stages: int) -> None:
    """Simulated by hand: a stage trains when it is selected and the one before has trained."""
    selecting = took["measure"] + took["fit"] + took["select"]
    here = trained = 0.0
    for stage in range(stages):
        here = max(here + selecting, trained)
        trained = here + took["train"]
        here += took["evaluate"] if stage else 0.0
    left = time_left(Plan(stages, STEPS, "train"), {}, (), {}, took)
    assert left.run == pytest.approx(max(here, trained) + took["evaluate"])
    assert left.run <= stages * sum(took.values()) * (1 + 1e-9)


def test_in_words() -> None:
    said = [about(x) for x in (None, 0.0, 0.4, 7.6, 99.0, 720.0, 5_400.0, 9_000.0, 400_000.0)]
    assert said[:5] == ["unknown yet", "any moment", "any moment", "about 8 s", "about 99 s"]
    assert said[5:] == ["about 12 min", "about 90 min", "about 2 h", "about 5 days"]
