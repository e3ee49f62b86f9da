"""Methods of the literature in a whole loop: what each needs is measured, by the model that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import tiny
from tests.measures.test_judge import fond_of_digits
from tests.pipeline.conftest import Simulate, questions, simulated_values, table_of, write_jsonl
from zpd_ray import measures
from zpd_ray.config import Config
from zpd_ray.config_file import validate
from zpd_ray.engines import ModelRef
from zpd_ray.engines.transformers import TransformersEngine
from zpd_ray.errors import ZpdError
from zpd_ray.matching import zpd_score
from zpd_ray.pipeline.commands import perform
from zpd_ray.rundir.begin import check_run, record
from zpd_ray.rundir.records import load_fit, load_selection
from zpd_ray.rundir.store import Store


def top(scores: np.ndarray, ids: list[str], n: int) -> list[str]:
    """The ids of the ``n`` largest scores, NaN left out, best first."""
    order = [i for i in np.argsort(-scores, kind="stable") if not np.isnan(scores[i])]
    return [ids[i] for i in order[:n]]


@pytest.mark.nightly  # tests/selection/test_literature.py: the same scores, without a loop
def test_a_loop_by_ifd_with_four_others_beside(local_ray: None, tmp_path: Path) -> None:
    model = tiny.build_model(tmp_path / "model", layers=1)
    reference = tiny.build_model(tmp_path / "reference", layers=1, heads=1, seed=1)
    judge = fond_of_digits(tiny.build_model(tmp_path / "judge", layers=1, seed=2))
    values = {
        "output": str(tmp_path / "run"),
        "stages": 1,
        "pool": {"path": str(write_jsonl(tmp_path / "pool.jsonl", questions(40))), "items_per_part": 25},
        "model": {"path": str(model)},
        "select": {
            "budget": {"items": 6},
            "method": "ifd",
            "beside": ["ppl_middle", "rho", "data_whisperer", "judge"],
            "reference_model": str(reference),
            "judge": {"model": str(judge), "lowest": -1e6, "highest": 1e6},
        },
        "measure": {"grader": "tests.selection.soft:Soft", "max_new_tokens": 6, "max_unparsed_share": 1.0},
        "ability": {"allow_extreme": True},  # random weights repeat no reference
        "train": {"epochs": 1, "batch_size": 6, "lora": {"targets": ["q_proj"]}},
    }
    config, store = validate(values), Store(str(tmp_path / "run"))
    perform("run", config)
    assert store.names("stages/00/adapter")
    told = store.read_json("stages/00/measured.json")
    assert set(told) == {"answers", "alone", "reference", "in_context", "judge"}
    assert told["judge"]["responses"] == 40 > told["judge"]["unparsed"]
    own, alone, other = (
        table_of(store, f"stages/00/measurements/{name}") for name in ("answers", "alone", "reference")
    )
    theirs = TransformersEngine(config, ModelRef(str(reference))).score(table_of(store, "pool")).nll
    np.testing.assert_allclose(other["nll_reference"].to_numpy(), theirs, atol=1e-4)
    nll, ids = own["nll"].to_numpy().astype(float), own["item_id"].to_pylist()
    ratio = nll / alone["nll_alone"].to_numpy()
    centre = np.exp(load_fit(store, 0).calibration.location)
    assert abs(np.log(centre / np.median(nll))) < 1 / 16  # 40 items: the median lies between two of them
    for directory, scores in (
        ("selected", np.where(ratio <= 1, ratio, np.nan)),
        ("beside/ppl_middle/selected", -np.abs(np.log(nll / centre))),
        ("beside/rho/selected", nll - theirs),
        ("beside/data_whisperer/selected", measured_here(config, store, "in_context", "utility", model)),
        ("beside/judge/selected", measured_here(config, store, "judge", "rating", judge)),
    ):
        chosen = table_of(store, f"stages/00/{directory}").sort_by("rank")
        np.testing.assert_allclose(chosen["score"].to_numpy(), np.sort(-scores)[:6] * -1, atol=1e-6)
        if len(set(np.round(scores, 6))) == len(scores):  # else a hash draws
            assert chosen["item_id"].to_pylist() == top(scores, ids, 6)


def measured_here(config: Config, store: Store, name: str, column: str, model: Path) -> np.ndarray:
    """A column of a measure by an engine of this process, NaN for null."""
    measure = measures.load(name, config)
    engine = TransformersEngine(config, ModelRef(str(model)))
    parts = [store.read_table(f"pool/{part}") for part in store.names("pool")]
    found = [measures.rows_of(name, measure, engine, part, 0)[column].to_numpy() for part in parts]
    return np.concatenate(found).astype(np.float64)


def test_zpd_static_ranks_every_stage_by_what_stage_0_measured(simulate: Simulate) -> None:
    """Stage 1 goes on where stage 0 stopped, while b and p of what it takes are those of stage 1."""
    _, store = simulate(n=300, stages=2, select={"method": "zpd_static", "beside": ["zpd"]})
    first, fit = table_of(store, "stages/00/measurements/answers"), load_fit(store, 0)
    nll, s, k = (first[name].to_numpy() for name in ("nll", "successes", "rollouts"))
    b, b_sd = fit.difficulty(nll.astype(float), s, k, np.zeros(len(nll)))
    scores = zpd_score(fit.ability.theta, b, b_sd)
    order = top(scores, first["item_id"].to_pylist(), 60)
    stages = [table_of(store, f"stages/0{stage}/selected").sort_by("rank") for stage in (0, 1)]
    assert [name for table in stages for name in table["item_id"].to_pylist()] == order
    assert stages[1]["score"].to_pylist() == sorted(scores, reverse=True)[30:60]
    anew = table_of(store, "stages/01/beside/zpd/selected")
    assert set(anew["item_id"].to_pylist()) != set(order[30:])


def test_the_middle_stays_where_it_was_and_is_taken_from_both_sides(simulate: Simulate) -> None:
    """Beside it delta_loss, which takes what the NLLs of the two stages say, and nothing of the first."""
    _, store = simulate(n=300, stages=2, select={"method": "ppl_middle", "beside": ["delta_loss"]})
    trained: set[str] = set()
    for stage in (0, 1):
        table = table_of(store, f"stages/0{stage}/measurements/answers")
        away, ids = (
            np.log(table["nll"].to_numpy()) - load_fit(store, 0).calibration.location,
            table["item_id"],
        )
        scores = np.where([name in trained for name in ids.to_pylist()], np.nan, -np.abs(away))
        chosen = top(scores, ids.to_pylist(), 30)
        assert table_of(store, f"stages/0{stage}/selected").sort_by("rank")["item_id"].to_pylist() == chosen
        above = np.mean([away[ids.to_pylist().index(name)] > 0 for name in chosen])
        assert 0.2 < above < 0.8
        trained |= set(chosen)
    before, now = (table_of(store, f"stages/0{stage}/measurements/answers") for stage in (0, 1))
    fall = before["nll"].to_numpy().astype(float) - now["nll"].to_numpy()
    first = set(table_of(store, "stages/00/selected")["item_id"].to_pylist())
    fall = np.where([name in first for name in now["item_id"].to_pylist()], np.nan, fall)
    moved = table_of(store, "stages/01/beside/delta_loss/selected").sort_by("rank")
    assert moved["item_id"].to_pylist() == top(fall, now["item_id"].to_pylist(), 30)
    drawn = load_selection(store, "stages/00/beside/delta_loss")
    assert (drawn.tied, drawn.drawn, drawn.left_out) == (300, 30, 0)


@pytest.mark.nightly  # tests/selection/test_literature.py: the score, by means that are given
def test_a_group_is_taken_first_whose_untrained_items_have_gained_most(simulate: Simulate) -> None:
    _, store = simulate(n=300, stages=2, select={"method": "delta_loss", "delta_by": "group"})
    before, now, items = (
        table_of(store, name)
        for name in ("stages/00/measurements/answers", "stages/01/measurements/answers", "pool")
    )
    fall = before["nll"].to_numpy().astype(float) - now["nll"].to_numpy()
    first = set(table_of(store, "stages/00/selected")["item_id"].to_pylist())
    fresh = np.array([name not in first for name in now["item_id"].to_pylist()])
    group = np.array(items["group"].to_pylist())
    means = {name: fall[fresh & (group == name)].mean() for name in ("g0", "g1", "g2")}
    told = store.read_json("stages/01/moved.json")
    assert told == pytest.approx(means, abs=1e-6)
    chosen = table_of(store, "stages/01/selected")
    assert set(chosen["group"].to_pylist()) == {max(means, key=means.__getitem__)}
    assert not first & set(chosen["item_id"].to_pylist())


def test_what_few_items_are_measured_for_twice_is_refused(tmp_path: Path) -> None:
    values = simulated_values(tmp_path, n=1, select={"beside": ["delta_loss"]})
    values["measure"] |= {"scope": "zone"}
    with pytest.raises(ZpdError, match=r"^delta_loss compares what two stages have measured of an item, and"):
        check_run(validate(values))


@pytest.mark.parametrize(
    ("select", "told"),
    [
        ({"method": "judge"}, "^select.judge.model and select.judge.url are missing, and the method judge"),
        ({"method": "data_whisperer"}, "^the method data_whisperer needs the model's attention, which"),
        ({"method": "rho"}, "^select.reference_model is missing, and a selection method in use"),
        ({"beside": ["superfiltering"]}, "^select.proxy is missing, and a selection method in use"),
        (
            {"window_low": 1.0},
            "select: window_low = 1 is above window_high = 0, so that no item lies between; exchange them",
        ),
    ],
)
def test_what_a_method_lacks_is_told_before_ray_starts(
    tmp_path: Path, select: dict[str, Any], told: str
) -> None:
    with pytest.raises(ZpdError, match=told):
        check_run(validate(simulated_values(tmp_path, n=1, select=select)))


def test_a_reference_model_that_is_not_there_is_told_with_its_measure(tmp_path: Path) -> None:
    model = str(tiny.build_model(tmp_path / "model", layers=1))
    values = simulated_values(tmp_path, n=1, select={"method": "rho", "reference_model": "/not/there"})
    values |= {"model": {"path": model}, "engine": {"name": "transformers"}, "measure": {}}
    with pytest.raises(
        ZpdError, match=r"the measure reference asks a model that cannot be loaded: .*/not/there"
    ):
        check_run(validate(values))


def test_the_reference_model_stays_once_something_was_measured_with_it(tmp_path: Path) -> None:
    def values(reference: str) -> dict[str, Any]:
        select = {"method": "rho", "reference_model": reference}
        return simulated_values(tmp_path, n=1, select=select)

    run = check_run(validate(values("one")))
    record(run)
    check_run(validate(values("other")))
    run.store.write_bytes("stages/00/measurements/answers/part-000000.parquet", b"")
    with pytest.raises(ZpdError, match=r"select\.reference_model: 'one' -> 'other'"):
        check_run(validate(values("other")))
