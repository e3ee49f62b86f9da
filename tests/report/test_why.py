"""Explanations agree with what selection has written, and with a plain sort of everything."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from tests.cli.test_cli import invoke
from tests.pipeline.conftest import table_of
from tests.taken import UNREADABLE, reading
from zpd_ray.errors import ZpdError
from zpd_ray.report.find import Found, find_items, find_quarantined
from zpd_ray.report.items import draw_reasons, reasons
from zpd_ray.report.why import Standing, standing
from zpd_ray.rundir import Run


@pytest.fixture(scope="module")
def by_stage(taken: Run) -> list[dict[str, Standing]]:
    """By stage and id: some that were selected at either stage, the easiest, the hardest, and every tenth."""
    selected = [table_of(taken.store, f"stages/{stage:02d}/selected")["item_id"] for stage in (0, 1)]
    some = {name for ids in selected for name in ids.to_pylist()[::6]}
    answers = table_of(taken.store, "stages/00/measurements/answers").select(["item_id", "nll"])
    by_nll = answers.drop_null().sort_by("nll")["item_id"].to_pylist()
    some |= {*by_nll[:8], *by_nll[-8:]}
    found = find_items(taken, sorted(some | {f"q{i}" for i in range(0, 600, 10)}))
    return [{name: standing(taken, at, stage, "zpd") for name, at in found.items()} for stage in (0, 1)]


@pytest.mark.parametrize("stage", [0, 1])
def test_numbers_of_the_selected_are_those_that_selection_wrote(
    taken: Run, by_stage: list[dict[str, Standing]], stage: int
) -> None:
    selected = table_of(taken.store, f"stages/{stage:02d}/selected").to_pylist()
    written = {row["item_id"]: row for row in selected}
    lowest = min(row["score"] for row in selected if row["reason"] != "replay")
    shared = by_stage[stage].keys() & written.keys()
    assert len(shared) > 2
    for name, found in by_stage[stage].items():
        assert (found.rank is not None) == (name in written)
        if name in written:
            row = written[name]
            assert found.judged == {key: row[key] for key in ("b", "b_sd", "p", "score")}
            assert (found.rank, found.threshold) == (row["rank"], lowest)
            assert found.why.startswith("selected for replay" if row["reason"] == "replay" else "selected: p")


def test_whoever_was_left_out_has_a_reason_that_holds(by_stage: list[dict[str, Standing]]) -> None:
    first, second = by_stage
    told = {"easier": 0, "harder": 0, "trained": 0, "inside": 0}
    for found in (found for stage in by_stage for found in stage.values() if found.rank is None):
        if found.judged is None:
            continue
        p, score, threshold = found.judged["p"], found.judged["score"], found.threshold
        if "selected at stage 0" in found.why:  # train.method = "none"
            told["trained"] += 1
            continue
        assert threshold is not None
        assert score <= threshold * (1 + 1e-9)
        assert f"p = {p:.2f}" in found.why
        side = "easier" if p > 0.9 else "harder" if p < 0.1 else "inside"
        assert f"{side} {'the zone' if side == 'inside' else 'than the zone'}" in found.why
        assert f"score {score:.3g}" in found.why
        told[side] += 1
    assert min(told.values()) > 0, told
    for name, before in first.items():
        if before.rank is not None and not before.why.startswith("selected for replay"):
            again = second[name]
            assert "selected at stage 0" in again.why or again.why.startswith("selected for replay")


def test_an_item_that_was_not_measured(taken: Run) -> None:
    at = find_items(taken, [UNREADABLE])[UNREADABLE]
    found = standing(taken, at, 0, "zpd")
    assert found.why == "could not be measured: the tokens are not of this world"
    assert (found.judged, found.rank) == (None, None)


def test_a_method_beside_has_its_own_threshold(taken: Run) -> None:
    rows = table_of(taken.store, "stages/01/beside/random/selected").to_pylist()
    at = find_items(taken, [rows[0]["item_id"]])[rows[0]["item_id"]]
    found = standing(taken, at, 1, "random")
    assert found.rank == rows[0]["rank"] == 0
    assert found.threshold == min(row["score"] for row in rows if row["reason"] != "replay")
    assert found.why.startswith("selected for its score")


def test_stages_that_have_not_come_so_far(taken: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A copy of the run that was killed between its steps."""
    import shutil

    from zpd_ray.rundir.begin import recorded_run

    half = tmp_path_factory.mktemp("half") / "out"
    shutil.copytree(taken.store.root, half)
    (half / "stages/01/selection.json").unlink()
    run, at = recorded_run(str(half)), Found("part-000000.parquet", 0)
    found = standing(run, at, 1, "zpd")
    assert found.why == "nothing is selected yet"
    assert found.judged is not None
    assert math.isfinite(found.judged["score"])
    (half / "stages/01/fit.json").unlink()
    assert standing(run, at, 1, "zpd").why == "measured; ability is not fitted yet"
    shutil.rmtree(half / "stages/01/measurements")
    assert standing(run, at, 1, "zpd").why == "not measured yet"


def test_items_are_found_by_id_and_by_place(taken: Run) -> None:
    pool = pa.concat_tables(
        taken.store.read_table(f"pool/{name}", ["item_id", "source_row"])
        for name in taken.store.names("pool")
    )
    rng = np.random.default_rng(0)
    some = pool.take(rng.choice(pool.num_rows, 5, replace=False)).to_pylist()
    by_id = find_items(taken, [row["item_id"] for row in some])
    by_place = find_items(taken, [f"pool.jsonl:{row['source_row']}" for row in some])
    for row in some:
        at = by_id[row["item_id"]]
        assert by_place[f"pool.jsonl:{row['source_row']}"] == at
        assert taken.store.read_table(f"pool/{at.part}")["item_id"][at.row].as_py() == row["item_id"]


def test_no_part_is_read_after_the_last_that_is_needed(taken: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = taken.store.names("pool")
    first = taken.store.read_table(f"pool/{parts[0]}")["item_id"][0].as_py()
    with reading(taken, monkeypatch) as names:
        find_items(taken, [first])
    assert names == [f"pool/{parts[0]}"]
    assert len(parts) > 1


def test_rows_in_quarantine_are_found_by_place_and_by_an_id_that_they_spell_out(taken: Run) -> None:
    clash = find_quarantined(taken, "pool.jsonl:601")
    assert clash is not None
    assert clash["reason"] == "item_id used twice"
    blank = find_quarantined(taken, "blank")
    assert blank is not None
    assert blank["source_row"] == 602
    assert find_quarantined(taken, "blan") is None


def test_the_command_tells_all_of_it(taken: Run) -> None:
    root = taken.store.root
    code, text = invoke("why", root, "q8", UNREADABLE, "blank")
    assert code == 0, text
    assert f"q8: row 8 of {taken.config.pool.path}, group g2" in text
    assert "prompt: question 8, in [bold] letters" in text  # not taken for markup
    assert "could not be measured: the tokens are not of this world" in text
    assert "blank: in quarantine: empty prompt" in text
    code, text = invoke("why", root, "held-out")
    assert code == 2
    assert "is in the evaluation set" in text
    code, text = invoke("why", root, "again")  # of the same content as q3
    assert code == 2
    assert "rows that repeat others (1)" in text
    code, text = invoke("why", root, "q8", "--method", "ifd")
    assert code == 2
    assert "selects by zpd, random; got 'ifd'" in text
    code, text = invoke("why", root, "q8", "--stage", "2")
    assert code == 2
    assert "measured stages are 0, 1" in text


def test_a_kept_response_is_told(taken: Run, capsys: pytest.CaptureFixture[str]) -> None:
    kept = (
        taken.store.read_table("stages/01/measurements/answers/part-000000.parquet")
        .slice(0, 1)
        .to_pylist()[0]
    )
    draw_reasons(reasons(taken, [kept["item_id"]], 1, None))
    assert f"a response at stage 1: {kept['completion']}" in capsys.readouterr().out


def test_a_directory_without_a_run(tmp_path: object) -> None:
    from zpd_ray.rundir.begin import recorded_run

    with pytest.raises(ZpdError, match="holds no run"):
        recorded_run(str(tmp_path))
