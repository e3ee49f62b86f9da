"""A selection method that needs a column of its own: one file outside of the package, named in the config."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
import pytest

from tests.pipeline.conftest import Simulate, table_of
from tests.pipeline.own_method import ratios
from tests.pipeline.test_run import files_of
from zpd_ray.config import Config
from zpd_ray.errors import ZpdError
from zpd_ray.rundir.records import load_selection
from zpd_ray.rundir.store import Store

OWN = "tests.pipeline.own_method:Ifd"
ALONE = "stages/00/measurements/tests.pipeline.own_method.ResponseAlone"


def test_it_goes_through_the_loop_beside_another(plain_run: tuple[Config, Store], simulate: Simulate) -> None:
    """Its column is measured, row by row beside the answers; what it selects is the top by its own score."""
    zpd, plain = plain_run
    _, store = simulate(
        stages=1, pool={"path": zpd.pool.path}, select={"method": OWN, "beside": ["zpd"], "replay": 0.1}
    )
    assert store.names(ALONE) == store.names("pool")
    answers, alone = table_of(store, "stages/00/measurements/answers"), table_of(store, ALONE)
    ratio = ratios(answers, alone)
    eligible = np.flatnonzero(ratio < 1)
    order = answers["item_id"].take(eligible[np.argsort(-ratio[eligible], kind="stable")]).to_pylist()
    selected = table_of(store, "stages/00/selected").sort_by("rank")
    replayed = pc.equal(selected["reason"], "replay")
    zone, replay = selected.filter(pc.invert(replayed)), selected.filter(replayed)
    again = set(replay["item_id"].to_pylist())  # drawn from mastered items, before the zone is filled
    assert 0 < len(again) < 20
    chosen = [name for name in order if name not in again][: 150 - len(again)]
    assert zone["item_id"].to_pylist() == chosen
    by_id = dict(zip(answers["item_id"].to_pylist(), ratio, strict=True))
    np.testing.assert_allclose(zone["score"].to_numpy(), [by_id[name] for name in chosen])
    assert set(store.read_json("stages/00/measured.json")) == {
        "answers",
        "tests.pipeline.own_method:ResponseAlone",
    }
    # The selection beside is the one that zpd makes by itself, and nothing else was measured for that.
    beside = files_of(store, "stages/00/beside/zpd/selected")
    assert list(beside.values()) == list(files_of(plain, "stages/00/selected").values())
    own, other = (load_selection(store, f"stages/00{name}") for name in ("", "/beside/zpd"))
    assert own.selected == other.selected == 150
    assert (own.left_out, other.left_out) == (len(ratio) - len(eligible), 0)
    assert f"{own.left_out} items have no score by {OWN}, and could not be selected" in own.warnings
    assert own.mean_b != other.mean_b
    assert set(plain.read_json("stages/00/measured.json")) == {"answers"}


def test_a_measure_that_loses_a_row_stops_the_run_with_what_was_expected(simulate: Simulate) -> None:
    told = r"ShortOfARow made 59 rows of \['nll_alone', 'error'\] from 60 items; expected a row per item"
    with pytest.raises(ZpdError, match=told):
        simulate(n=60, stages=1, select={"method": "tests.pipeline.own_method:Mistaken"})


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"select": {"method": "zdp"}}, "unknown selection method 'zdp'.*did you mean 'zpd'"),
        ({"select": {"beside": ["ramdom"]}}, "unknown selection method 'ramdom'.*did you mean 'random'"),
        ({"engine": {"name": "simulate"}}, "unknown engine 'simulate'.*did you mean 'simulated'"),
        ({"measure": {"grader": "numeric_"}}, "unknown grader 'numeric_'.*did you mean 'numeric'"),
        (
            {"select": {"method": "no.such:Method"}},
            "selection method 'no.such:Method' cannot be imported",
        ),
        ({"train": {"method": "lora"}}, "the simulated engine has no weights to train.*expected 'none'"),
    ],
)
def test_an_unknown_name_is_refused_before_ray_starts(
    simulate: Simulate, sections: dict[str, dict[str, object]], told: str
) -> None:
    with pytest.raises(ZpdError, match=told):
        simulate(n=1, **sections)
