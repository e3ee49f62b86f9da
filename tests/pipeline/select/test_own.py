"""Training on the model's own right responses: where they go, and what becomes of items without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.pipeline.conftest import Simulate, selected_of, simulated_values, table_of
from zpd_ray.config_file import validate
from zpd_ray.errors import ZpdError
from zpd_ray.report.find import find_items
from zpd_ray.report.why import standing
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.begin import check_run, recorded_run
from zpd_ray.rundir.judging import last_measured
from zpd_ray.rundir.records import load_selection

GAINING = {"simulated": {"gain": 0.3}}
OWN: dict[str, Any] = {"train": {"method": "none", "target": "own"}}


def answered(run: Run, stage: int) -> dict[str, int]:
    """Right responses of each item, as the stage knows it."""
    found: dict[str, int] = {}
    for part in run.store.names("pool"):
        known = last_measured(run, stage, "answers", part).answers
        assert pc.all(pc.equal(pc.is_valid(known["own"]), pc.greater(known["successes"], 0))).as_py()
        found |= dict(zip(known["item_id"].to_pylist(), known["successes"].to_pylist(), strict=True))
    return found


def said(table: pa.Table) -> list[str]:
    return [turns[0]["content"] for turns in table["completion"].to_pylist()]


def test_a_right_response_takes_the_place_of_the_reference(simulate: Simulate) -> None:
    config, store = simulate(measure={"rollouts": 1}, **OWN)
    run = Run(config, store)
    for stage in range(2):
        right, table = answered(run, stage), selected_of(store, stage)
        own = [right[item] > 0 for item in table["item_id"].to_pylist()]
        assert 0 < sum(own) < len(own)
        assert load_selection(store, f"stages/0{stage}").own == sum(own)
        rows = zip(said(table), table["answer"].to_pylist(), own, strict=True)
        for text, answer, kept in rows:  # a reference is words, and then the answer
            assert text == answer if kept else text.endswith(f"word {answer}")
        assert table["response_tokens"].to_pylist() == [len(text.split()) for text in said(table)]


def test_without_references_only_what_was_answered_is_selected(simulate: Simulate) -> None:
    config, store = simulate(pool={"reference": "none"}, stages=1, **OWN)
    right, table = answered(Run(config, store), 0), selected_of(store)
    assert min(right[item] for item in table["item_id"].to_pylist()) > 0
    selection = load_selection(store, "stages/00")
    assert selection.own == table.num_rows
    assert selection.unanswered == sum(not count for count in right.values()) > 0
    assert any(f"{selection.unanswered} items have no right response" in told for told in selection.warnings)
    nobody = next(item for item, count in right.items() if count == 0)
    found = find_items(Run(config, store), [nobody])[nobody]
    told = standing(Run(config, store), found, 0, "zpd").why
    assert "no right response of the model's own to train on" in told
    assert said(table) == table["answer"].to_pylist()


def test_what_was_not_answered_may_be_measured_again(simulate: Simulate) -> None:
    """In scope zone: the model of now may answer it."""
    _, store = simulate(
        pool={"reference": "none"}, measure={"scope": "zone", "rollouts": 1}, engine=GAINING, **OWN
    )
    last = store.read_json("stages/01/measured.json")["rounds"]
    assert last[-1]["what"] == "candidates"
    asked = table_of(store, f"stages/01/rounds/{len(last) - 1:02d}/places")
    before = {
        (part, row): count
        for part in store.names("pool")
        for row, count in enumerate(
            store.read_table(f"stages/00/measurements/answers/{part}")["successes"].to_pylist()
        )
    }
    places = zip(asked["part"].to_pylist(), asked["row"].to_pylist(), strict=True)
    assert 0 < sum(before[place] == 0 for place in places) < asked.num_rows
    chosen, run = selected_of(store, 1), recorded_run(store.uri)
    assert load_selection(store, "stages/01").own == chosen.num_rows
    last = [
        last_measured(run, 1, "answers", part, ["item_id", "own"]).answers for part in store.names("pool")
    ]
    own = {row["item_id"]: row["own"] for table in last for row in table.to_pylist()}
    assert said(chosen) == [own[item] for item in chosen["item_id"].to_pylist()]
    assert [run.in_rounds(stage) for stage in (0, 1)] == [False, True]


def test_a_budget_of_tokens_counts_what_is_trained_on(simulate: Simulate) -> None:
    """A response of the model's is one token here, and a reference one to seven more."""
    _, store = simulate(stages=1, select={"budget": {"tokens": 100}}, **OWN)
    selection, table = load_selection(store, "stages/00"), selected_of(store)
    assert selection.tokens == sum(len(text.split()) for text in said(table))
    assert 90 < selection.tokens <= 100


def test_where_nothing_is_trained_on_nothing_is_kept(plain_run: tuple[Any, Store]) -> None:
    _, store = plain_run
    assert table_of(store, "stages/00/measurements/answers")["own"].null_count == 1500
    assert load_selection(store, "stages/00").own == 0


def test_a_grader_that_asks_for_no_response_is_refused(tmp_path: Path) -> None:
    values = simulated_values(tmp_path, 20, measure={"grader": "greedy_match", "rollouts": 1}, **OWN)
    config = validate(values)
    with pytest.raises(ZpdError, match=r"train.target = 'own'.*'greedy_match' asks for none"):
        check_run(config)
