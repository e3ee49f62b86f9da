"""Which runs a comparison has, what they are made with, and what comes of finished ones."""

from __future__ import annotations

import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tomli_w

from tests.pipeline.processes import Quickstart
from zpd_ray.compare.configs import read_configs
from zpd_ray.compare.cost import added_training, needed
from zpd_ray.compare.file import load_comparison
from zpd_ray.compare.page import page
from zpd_ray.compare.picks import by_group, by_truth, counted, in_common
from zpd_ray.compare.plan import Plan
from zpd_ray.compare.sharing import begin_from
from zpd_ray.compare.show import grids, remarks
from zpd_ray.compare.writing import write_result
from zpd_ray.config_file import load_config
from zpd_ray.errors import ZpdError
from zpd_ray.report.cost import Cost, costs
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.begin import check_run, recorded_run
from zpd_ray.rundir.layout import CONFIG, FIT, MEASURE, StageFiles
from zpd_ray.rundir.records import load_events, load_selection

RATES = [1e-3, 4e-3]


def plan_over(quickstart: Quickstart, directory: Path, **more: object) -> Plan:
    """A comparison of the quickstart in small: as many stages, of half the pool in all."""
    run = load_config(str(quickstart.config), quickstart.overrides)
    (directory / "run.toml").write_text(tomli_w.dumps(run.model_dump(mode="json", exclude_none=True)))
    values: dict[str, object] = {
        "run": "run.toml",
        "output": "out",
        "methods": ["random", "zpd", "ifd", "full"],
        "budgets": [0.25, 0.5],
        "seeds": [0, 1],
        "truth": "truth",
        "tune": {"train.learning_rate": RATES},
    }
    (directory / "compare.toml").write_text(tomli_w.dumps(values | more))
    comparison = load_comparison(str(directory / "compare.toml"))
    return Plan(comparison, read_configs(comparison))


def finish(plan: Plan, quickstart: Quickstart, better: str | None = None) -> None:
    """The quickstart's run in the place of every run that can be made; ``better`` answers all questions."""
    while cells := list(plan.open_cells()):
        for cell in cells:
            place = Path(plan.comparison.output) / cell.place
            shutil.copytree(quickstart.output, place)
            if (
                better is not None
                and cell.method == better
                and dict(cell.values)["train.learning_rate"] == RATES[1]
            ):
                all_right(Store(str(place)), plan.run_of(cell).config.stages)  # type: ignore[union-attr]


def all_right(store: Store, stages: int) -> None:
    directory = StageFiles(stages - 1).evaluation
    for name in store.names(directory):
        rows = store.read_table(f"{directory}/{name}")
        at = rows.schema.get_field_index("credit")
        credit = rows["rollouts"].cast(rows.schema.field("credit").type)
        store.write_table(f"{directory}/{name}", rows.set_column(at, rows.schema.field(at), credit))


def test_every_row_has_the_same_trials_of_a_seed_that_no_row_has(
    quickstart: Quickstart, tmp_path: Path
) -> None:
    plan = plan_over(quickstart, tmp_path)
    assert plan.rows[-3:] == [("full", 1.0), (plan.with_cost, 0.25), (plan.with_cost, 0.5)]
    assert {len(plan.trials(row)) for row in plan.rows} == {len(RATES)}
    trials = {cell for row in plan.rows for cell in plan.trials(row)}
    assert {cell.seed for cell in trials} == {2}
    assert plan.total == len(plan.rows) * (len(RATES) + 2)
    first = list(plan.open_cells())  # no table before trials, no cost added before there is one
    assert set(first) == {cell for cell in trials if cell.method != plan.with_cost}
    assert len({cell.place for cell in trials}) == len(trials)


def test_runs_differ_in_what_is_compared_alone(quickstart: Quickstart, tmp_path: Path) -> None:
    plan = plan_over(quickstart, tmp_path)
    ours, theirs, everything = (
        plan.run_of(plan.trials((name, budget))[0])
        for name, budget in (("zpd", 0.5), ("ifd", 0.5), ("full", 1.0))
    )
    assert ours is not None
    assert theirs is not None
    assert everything is not None
    assert (ours.config.select.budget.fraction, everything.config.select.budget.fraction) == (0.25, 1.0)
    assert (ours.config.stages, everything.config.stages) == (2, 1)
    same = {"output": "", "select": ours.config.select}
    assert ours.config.model_copy(update=same) == theirs.config.model_copy(update=same)
    answers, whole = plan.stage0_of(ours)
    assert answers.store.root == whole.store.root == plan.stage0_of(theirs)[0].store.root
    alone = plan.stage0_of(theirs)[1]
    assert alone.measures == ["answers", "alone"]
    assert alone.store.root != answers.store.root


def test_what_is_trained_on_decides_what_stage_0_keeps(quickstart: Quickstart, tmp_path: Path) -> None:
    """Responses of the model's own are kept where a method trains on them, and not for the others."""
    own = {"name": "own", "method": "zpd", "set": {"train.target": "own"}}
    plan = plan_over(quickstart, tmp_path, methods=["random", "zpd", own], tune={})
    runs = [plan.run_of(plan.of_table((name, 0.5), ())[0]) for name in ("zpd", "own")]
    plain, kept = (plan.stage0_of(run)[0] for run in runs if run is not None)
    assert (plain.config.train.target, kept.config.train.target) == ("reference", "own")
    assert plain.store.root != kept.store.root


def test_a_run_begins_with_the_stage_0_of_another(quickstart: Quickstart, tmp_path: Path) -> None:
    """The files are those of a run by itself, and links; what it needs beside is left to measure."""
    before, plan = recorded_run(str(quickstart.output)), plan_over(quickstart, tmp_path)
    for method, measured in (("zpd", True), ("ifd", False)):
        run = plan.run_of(plan.trials((method, 0.5))[0])
        assert run is not None
        for _ in range(2):  # again changes nothing
            begin_from(before, run)
        assert run.finished(0, FIT)
        assert run.finished(0, MEASURE) is measured
        for name in before.store.names("pool"):
            files = [Path(store.path(f"pool/{name}")) for store in (before.store, run.store)]
            assert files[0].samefile(files[1])
        assert check_run(run.config).store.exists(CONFIG)
        assert costs(run)[0].prefilled == costs(before)[0].prefilled > 0


def test_tables_of_what_is_finished(quickstart: Quickstart, tmp_path: Path) -> None:
    plan = plan_over(quickstart, tmp_path, methods=["random", "zpd"])
    with pytest.raises(ZpdError, match="no finished run"):
        write_result(plan, {})
    finish(plan, quickstart, better="zpd")
    assert plan.best(("zpd", 0.5)) == (("train.learning_rate", RATES[1]),)  # by its trials
    found = write_result(plan, {})
    assert found.items + found.items_for_tuning == 24
    by_row = {(line.method, line.budget): line for line in found.lines}
    assert by_row["zpd", 0.5].accuracy.low == pytest.approx(1.0)
    assert by_row["zpd", 0.5].told == "above random"
    assert by_row[plan.with_cost, 0.5].told == "not distinguishable from random"
    assert by_row["random", 0.5].more_accuracy is None
    assert by_row["random", 0.5].selecting_tokens == 0
    assert found.missing == []
    (overlap, _) = found.overlaps
    assert np.allclose(overlap.shares, 1.0)
    assert sum(by_row["zpd", 0.5].truth.values()) == pytest.approx(1.0)
    plot = Path(plan.comparison.output, "plot.svg").read_text()
    assert all(f">{name}<" in plot for name in plan.contenders)


def test_evaluation_items_that_could_not_be_measured_are_counted(
    quickstart: Quickstart, tmp_path: Path
) -> None:
    plan = plan_over(quickstart, tmp_path, methods=["random", "zpd"], tune={}, seeds=[0], budgets=[0.5])
    finish(plan, quickstart)
    (zpd,) = plan.of_table(("zpd", 0.5), ())
    store, directory = Store(f"{plan.comparison.output}/{zpd.place}"), StageFiles(1).evaluation
    name = store.names(directory)[0]
    rows = store.read_table(f"{directory}/{name}")
    at, errors = rows.schema.get_field_index("error"), ["too long", *[None] * (rows.num_rows - 1)]
    kind = rows.schema.field(at)
    store.write_table(f"{directory}/{name}", rows.set_column(at, kind, pa.array(errors, kind.type)))
    found = write_result(plan, {})
    assert {line.method: line.unmeasured for line in found.lines} == {
        "random": 0,
        "zpd": 1,
        plan.with_cost: 0,
    }
    assert any("1 of 24 evaluation items could not be measured" in told for told in remarks(found))


def test_the_table_as_markdown(quickstart: Quickstart, tmp_path: Path) -> None:
    plan = plan_over(quickstart, tmp_path, methods=["random", "zpd"], tune={}, seeds=[0], budgets=[0.5])
    finish(plan, quickstart)
    found = write_result(plan, {})
    table = Path(plan.comparison.output, "table.md").read_text()
    assert "not distinguishable from random" in table
    assert json.loads(Path(plan.comparison.output, "table.json").read_text())["items"] == found.items


def test_the_page_holds_every_table_and_nothing_that_runs_or_is_fetched(
    quickstart: Quickstart, tmp_path: Path
) -> None:
    plan = plan_over(quickstart, tmp_path, methods=["random", "zpd"], tune={}, seeds=[0], budgets=[0.5])
    finish(plan, quickstart)
    found = write_result(plan, {})
    hostile = "<script>alert(1)</script>"
    text = page(replace(found, missing=[hostile]), f"runs/{hostile}")
    assert all(text.count(html.escape(grid.title)) >= 3 for grid in grids(found))
    assert "<svg" in text
    assert "<script" not in text
    assert html.escape(hostile) in text
    assert not re.search(r"""(src|href)=["'](?!#)""", text)
    assert Path(plan.comparison.output, "report.html").read_text() == page(found, plan.comparison.output)


def test_what_a_run_has_picked(quickstart: Quickstart) -> None:
    run = recorded_run(str(quickstart.output))
    groups, truth = by_group(run), by_truth(run, "truth")
    stages = range(run.config.stages)
    selected = sum(load_selection(run.store, StageFiles(stage).selection()).selected for stage in stages)
    assert groups.total() == truth.total() == selected
    assert truth.keys() <= {"wrong_reference", "easy", "learnable", "out_of_reach"}
    assert by_truth(run, "there is none") == {"": selected}
    assert np.array_equal(in_common([run, run])[0], in_common([run, run])[1])


def test_sentences_are_counted_whatever_their_numbers() -> None:
    assert counted(["3 of 4 are", "2 of 4 are", "other"]) == {"3 of 4 are": 2, "other": 1}


def test_the_cost_of_selecting_is_trained_for(quickstart: Quickstart) -> None:
    """Tokens read become items, up to the pool over all stages, then epochs."""
    run = recorded_run(str(quickstart.output))
    pool = run.store.read_json("pool.json")
    read = (needed(run).prefilled + needed(run).generated) / run.config.stages
    mean = (pool["prompt_tokens"] + pool["response_tokens"]) / pool["items"]
    more = added_training(run)
    epochs = run.config.train.epochs
    assert more.items * run.config.stages < pool["items"]
    items = int((run.config.select.budget.fraction or 0) * pool["items"])
    assert more.items * more.epochs <= items * epochs + read / mean
    assert more.items > items
    random = Run(
        run.config.model_copy(update={"select": run.config.select.model_copy(update={"method": "random"})}),
        run.store,
    )
    assert needed(random).prefilled == 0
    own = {"train": run.config.train.model_copy(update={"target": "own"})}
    assert needed(Run(random.config.model_copy(update=own), run.store)).prefilled == needed(run).prefilled > 0
    assert needed(random).trained == needed(run).trained > 0
    starting = sum(event.details.get("starting", 0) for event in load_events(run.store))
    assert starting > 0
    assert needed(run).training_seconds == sum(costs(run), Cost()).training_seconds - starting > 0
