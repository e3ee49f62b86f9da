"""Scopes probe and zone: who is asked, what is selected, what a kill leaves, and what drift does.

One pool, of which group g1 becomes a logit harder after stage 0. Runs of a scope go on from one stage 0.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy.special import expit

from tests.cli.test_cli import invoke
from tests.pipeline.conftest import perform_in, table_of
from tests.truth import true_difficulty
from zpd_ray import drift
from zpd_ray.config import Config
from zpd_ray.config_file import to_toml
from zpd_ray.errors import ZpdError
from zpd_ray.export.rows import SelectedRows
from zpd_ray.pipeline.commands import perform
from zpd_ray.report.find import Found
from zpd_ray.report.live.history import history
from zpd_ray.report.page.tally import take_stock
from zpd_ray.report.why import standing
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.begin import check_run
from zpd_ray.rundir.judging import difficulties, last_measured, read_measured
from zpd_ray.rundir.records import load_events, load_fit

N, SHIFT, GAIN = 4000, 1.0, 0.3


@pytest.fixture(scope="module")
def zone(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config, store = perform_in(
        tmp_path_factory.mktemp("rounds"),
        n=N,
        measure={"scope": "zone"},
        select={"replay": 0.1, "beside": ["random"]},
        engine={"simulated": {"drift": {"g1": SHIFT}, "gain": GAIN}},
    )
    return Run(config, store)


def again(run: Run, into: Path, **changed: Any) -> Run:
    """Stage 1 anew from the same stage 0, by a config with other values of ``measure``."""
    shutil.copytree(run.store.root, into)
    how = run.config.measure.model_copy(update=changed)
    config = run.config.model_copy(update={"measure": how, "output": str(into)})
    (into / "config.toml").write_text(to_toml(config))
    shutil.rmtree(into / "stages/01")
    if how.scope == "pool":
        (into / "probes.parquet").unlink()
    perform("run", config)
    return Run(config, Store(str(into)))


@pytest.fixture(scope="module")
def probe(zone: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return again(zone, tmp_path_factory.mktemp("probe") / "out", scope="probe")


@pytest.fixture(scope="module")
def untested(zone: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Without the test for drift."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drift, "LEVEL", 0.0)
        return again(zone, tmp_path_factory.mktemp("untested") / "out", scope="probe")


def files_of(run: Run) -> dict[str, bytes]:
    """What a run has left of stage 1, but for times."""
    root = Path(run.store.root)
    files = [root / "probes.parquet", *(root / "stages/01").rglob("*")]
    return {str(file.relative_to(root)): file.read_bytes() for file in files if file.is_file()}


def places(run: Run, stage: int) -> set[tuple[str, int]]:
    """Part and row of what a stage has measured."""
    found = set()
    for name in run.store.names(f"stages/{stage:02d}/measurements/answers"):
        table = run.store.read_table(f"stages/{stage:02d}/measurements/answers/{name}", ["row"])
        found |= {(name, row) for row in table["row"].to_pylist()}
    return found


def probes_of(run: Run) -> set[tuple[str, int]]:
    table = run.store.read_table("probes.parquet")
    return set(zip(table["part"].to_pylist(), table["row"].to_pylist(), strict=True))


def worth(run: Run, select: str = "stages/01/selected") -> float:
    """Mean of the true p (1 - p) over what was selected, replay aside."""
    rows = table_of(run.store, select)
    b = true_difficulty(rows["item_id"]) + np.where(np.array(rows["group"].to_pylist()) == "g1", SHIFT, 0.0)
    p = expit(GAIN - b)[np.array(rows["reason"].to_pylist()) != "replay"]
    return float((p * (1 - p)).mean())


def test_a_killed_run_with_another_number_of_actors_ends_with_the_same_bytes(
    zone: Run, tmp_path: Path
) -> None:
    """As killed while the second round was put back: some of its parts are, and it is not closed."""
    root = tmp_path / "out"
    shutil.copytree(zone.store.root, root)
    rounds = sorted((root / "stages/01/rounds").iterdir())
    assert len(rounds) == 4  # two of probes, and a group has drifted: two of candidates
    for later in rounds[2:]:
        shutil.rmtree(later)
    (rounds[1] / "round.json").unlink()
    (rounds[1] / "fit.json").unlink()
    for name in ("measured.json", "fit.json", "selection.json", "metrics.json"):
        (root / "stages/01" / name).unlink()
    kept = places(zone, 1) - set(list(places(zone, 1))[::2])
    first = table_of(zone.store, "stages/01/rounds/00/places")
    before = set(zip(first["part"].to_pylist(), first["row"].to_pylist(), strict=True))
    second = table_of(zone.store, "stages/01/rounds/01/places")
    half = {(p, r) for p, r in zip(second["part"].to_pylist(), second["row"].to_pylist(), strict=True)}
    for file in (root / "stages/01/measurements/answers").iterdir():
        table = zone.store.read_table(f"stages/01/measurements/answers/{file.name}")
        there = [(file.name, row) in before | (half & kept) for row in table["row"].to_pylist()]
        Store(str(root)).write_table(
            f"stages/01/measurements/answers/{file.name}", table.filter(pa.array(there))
        )
    three = zone.config.cluster.model_copy(update={"actors": 3})
    config = zone.config.model_copy(update={"output": str(root), "cluster": three})
    perform("run", config)
    assert files_of(Run(config, Store(str(root)))) == files_of(zone)


@pytest.mark.parametrize("name", ["zone", "probe"])
def test_probes_are_never_trained_on(name: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(name)
    probes = probes_of(run)
    assert len(probes) == 0.04 * N
    for directory in ("stages/00", "stages/01", "stages/00/beside/random", "stages/01/beside/random"):
        for part in run.store.names(f"{directory}/chosen"):
            rows = run.store.read_table(f"{directory}/chosen/{part}", ["row"])["row"].to_pylist()
            assert not {(part, row) for row in rows} & probes, directory


def test_what_is_measured_is_what_was_promised(zone: Run, probe: Run) -> None:
    budget = 0.1 * N * 0.9  # less replay
    for run in (zone, probe):
        closed = run.store.read_json("stages/01/measured.json")
        asked = [each["items"] for each in closed["rounds"]]
        assert sum(asked) == closed["answers"]["items"] == len(places(run, 1))
        tokens = sum(
            read_measured(run, 1, "answers", part, ["n_tokens"])["n_tokens"].to_numpy().sum()
            for part in run.store.names("pool")
        )
        assert tokens == closed["answers"]["tokens"]
        kinds = [each["what"] for each in closed["rounds"]]
        assert kinds[:2] == ["probes", "probes"]
        drifted, candidates = kinds.count("group g1"), kinds.count("candidates")
        assert (drifted, candidates) == ((0, 1) if run is zone else (1, 0))
        assert sum(asked) == (0.04 * N + 2.5 * budget if run is zone else 0.05 * N)
    # Few files, well filled: not a file for each part of the pool and less.
    files = {name: len(zone.store.names(f"stages/01/rounds/{name}/items")) for name in ("00", "02")}
    assert files["00"] <= 3
    assert files["02"] <= len(zone.store.names("pool"))


def test_half_of_the_candidates_are_chosen_as_if_nothing_had_drifted(zone: Run) -> None:
    """The harder group's best by the shift were a shift easier before; without it, the nearest to theta."""
    before, theta = {}, load_fit(zone.store, 1).ability.theta
    for part in zone.store.names("pool"):
        group = zone.store.read_table(f"pool/{part}", ["group"])["group"].to_pylist()
        known, n = last_measured(zone, 0, "answers", part), len(group)
        b = difficulties(zone, load_fit(zone.store, 0), known, np.zeros(n)).b
        before |= {(part, row): b[row] for row in range(n) if group[row] == "g1"}
    means = []
    for number in ("02", "03"):
        asked = table_of(zone.store, f"stages/01/rounds/{number}/places")
        found = set(zip(asked["part"].to_pylist(), asked["row"].to_pylist(), strict=True)) & before.keys()
        means.append(np.mean([before[place] for place in found]))
    moved, still = means
    assert moved < theta - SHIFT / 2
    assert abs(still - theta) < SHIFT / 4


def test_scope_pool_has_nothing_of_it(plain_run: tuple[Config, Store]) -> None:
    _, store = plain_run
    assert not store.exists("probes.parquet")
    for stage in (0, 1):
        assert not store.exists(f"stages/{stage:02d}/rounds")
        assert "probed" not in store.read_json(f"stages/{stage:02d}/fit.json")
        assert [*store.read_json(f"stages/{stage:02d}/measured.json")] == ["answers"]


@pytest.mark.nightly
def test_theta_is_that_of_measuring_everything(zone: Run, probe: Run, tmp_path: Path) -> None:
    pool = load_fit(again(zone, tmp_path / "out", scope="pool").store, 1)
    assert pool.probed is None
    assert not (tmp_path / "out/stages/01/rounds").exists()
    for run in (zone, probe):
        fit = load_fit(run.store, 1)
        assert abs(fit.ability.theta - pool.ability.theta) < 3 * fit.ability.se
        assert fit.ability.anchors == fit.probed.asked  # type: ignore[union-attr]
        assert fit.ability.stages[1].right == pytest.approx(fit.ability.stages[1].expected, abs=0.05)


@pytest.mark.parametrize("name", ["zone", "probe"])
def test_what_has_drifted_is_found_and_told_everywhere(name: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(name)
    probed = load_fit(run.store, 1).probed
    assert probed is not None
    (part,) = probed.drifted
    assert (part.kind, part.name) == ("group", "g1")
    assert abs(part.shift - SHIFT) < 3 * part.se
    asked = {each["what"]: each["items"] for each in run.store.read_json("stages/01/measured.json")["rounds"]}
    again = 40 if name == "probe" else 0  # what 5 % of the pool leave; in scope zone candidates are measured
    assert part.items == asked.get("group g1", 0) == again
    told = [event.details["drifted"] for event in load_events(run.store) if "drifted" in event.details]
    assert told[-1] == [vars(part)]
    code, text = invoke("run", str(config_file(run)))
    assert code == 0
    assert f"stage 1: group g1 is {part.shift:.2f}" in text


def config_file(run: Run) -> Path:
    file = Path(run.store.root).parent / "run.toml"
    file.write_text(to_toml(run.config))
    return file


@pytest.mark.nightly
def test_what_was_measured_again_is_judged_by_it_and_the_selection_is_better(
    zone: Run, probe: Run, untested: Run
) -> None:
    for run in (zone, probe):
        assert worth(run) > worth(untested) + 0.01
    group = {name: share(run, "g1") for name, run in (("zone", zone), ("untested", untested))}
    assert group["zone"] != group["untested"]
    selected = table_of(probe.store, "stages/01/selected")
    fresh = selected.filter(pc.not_equal(selected["reason"], "replay"))
    again = np.array(fresh["group"].to_pylist()) == "g1"
    b = true_difficulty(fresh["item_id"]) + np.where(again, SHIFT, 0.0)
    assert abs((fresh["b"].to_numpy() - b)[again].mean()) < 0.25  # without, off by a logit
    assert again.sum() > 40  # most of them are predicted, with what has drifted


def test_the_time_that_is_left_goes_by_what_a_stage_measures(zone: Run, probe: Run, tmp_path: Path) -> None:
    fresh, probes = 0.9 * 0.1 * N, 0.04 * N
    for run, planned in ((zone, probes + 2.5 * fresh), (probe, probes)):
        longer = replace(run, config=run.config.model_copy(update={"stages": 3}))
        asked = run.store.read_json("stages/01/measured.json")["answers"]["items"]
        work = {("measure", 0): N, ("measure", 1): asked, ("measure", 2): asked}
        assert history(longer).work == work
        before = tmp_path / run.config.measure.scope
        shutil.copytree(run.store.root, before)
        shutil.rmtree(before / "stages/01")
        work |= {("measure", 1): planned, ("measure", 2): planned}
        assert history(replace(longer, store=Store(str(before)))).work == work


@pytest.mark.nightly
def test_a_drift_stays_with_items_that_no_later_stage_has_measured(local_ray: None, tmp_path: Path) -> None:
    """At stage 2 the probes show none: they were asked after it. Items last measured at stage 0 keep it."""
    config, store = perform_in(
        tmp_path,
        n=N,
        stages=3,
        measure={"scope": "probe"},
        engine={"simulated": {"drift": {"g1": SHIFT}, "gain": GAIN}},
    )
    run, fit, away = Run(config, store), load_fit(store, 2), []
    assert fit.probed is not None
    assert fit.probed.drifted == []
    for part in store.names("pool"):
        known = last_measured(run, 2, "answers", part)
        pool = store.read_table(f"pool/{part}", ["item_id", "group"])
        rows = np.flatnonzero((known.stage == 0) & (np.array(pool["group"].to_pylist()) == "g1"))
        b = difficulties(run, fit, known.take(rows), np.zeros(len(rows))).b
        away.extend(b - SHIFT - true_difficulty(pool["item_id"])[rows])
    assert len(away) > 1000
    assert abs(np.mean(away)) < 0.4  # without, a logit


def share(run: Run, group: str) -> float:
    return float((np.array(table_of(run.store, "stages/01/selected")["group"].to_pylist()) == group).mean())


def test_zone_takes_what_it_has_measured_and_a_method_beside_what_it_likes(zone: Run, probe: Run) -> None:
    measured = places(zone, 1)

    def chosen(directory: str, reason: str) -> set[tuple[str, int]]:
        found = set()
        for part in zone.store.names(f"{directory}/chosen"):
            table = zone.store.read_table(f"{directory}/chosen/{part}", ["row", "reason"]).to_pylist()
            found |= {(part, row["row"]) for row in table if row["reason"] == reason}
        return found

    assert chosen("stages/01", "zone") <= measured
    assert chosen("stages/01", "replay") - measured
    beside = chosen("stages/01/beside/random", "score") | chosen("stages/01/beside/random", "zone")
    assert len(beside & measured) < 0.8 * len(beside)


def test_tables_have_a_row_per_item_whatever_was_measured(probe: Run) -> None:
    measured = places(probe, 1)
    for part in probe.store.names("pool"):
        ids = probe.store.read_table(f"pool/{part}", ["item_id"])["item_id"]
        table, known = read_measured(probe, 1, "answers", part), last_measured(probe, 1, "answers", part)
        first = read_measured(probe, 0, "answers", part)
        assert table.schema == first.schema == known.answers.schema
        assert table["item_id"].to_pylist() == known.answers["item_id"].to_pylist() == ids.to_pylist()
        asked = np.array([(part, row) in measured for row in range(len(ids))])
        np.testing.assert_array_equal(table["rollouts"].to_numpy() > 0, asked)
        np.testing.assert_array_equal(known.stage, asked)
        assert table["nll"].null_count == (~asked).sum()
        expected = [
            (t if a else f) for t, f, a in zip(table.to_pylist(), first.to_pylist(), asked, strict=True)
        ]
        assert known.answers.to_pylist() == expected


def test_looking_at_items_that_a_stage_has_not_measured(zone: Run, probe: Run) -> None:
    measured = places(zone, 1)
    part, row = next(place for place in sorted(probes_of(zone)) if place in measured)
    assert standing(zone, Found(part, row), 1, "zpd").why.startswith("a probe: asked at each stage")
    chosen = set(zone.store.read_table(f"stages/00/chosen/{part}")["row"].to_pylist())
    free = [r for r in range(400) if (part, r) not in measured | probes_of(zone) and r not in chosen]
    found = standing(zone, Found(part, free[0]), 1, "zpd")
    assert found.last_measured == 0
    assert found.measured is not None
    assert "not among the best, which were measured again" in found.why
    assert found.why.endswith("last measured at stage 0, b and p are predicted from it")
    rows = table_of(probe.store, "stages/01/selected").to_pylist()
    selected = next(row for row in rows if row["group"] == "g0")
    code, text = invoke("why", probe.store.root, selected["item_id"])
    assert code == 0, text
    assert "last measured at stage" in text
    assert invoke("show", probe.store.root)[0] == 0


def test_page_and_export_count_what_was_measured(probe: Run, tmp_path: Path) -> None:
    _, tallies, _ = take_stock(probe, [load_fit(probe.store, stage) for stage in (0, 1)], 2)
    assert [tally.failed for tally in tallies] == [0, 0]
    assert tallies[1].pool.sum() == N
    rows = pa.concat_tables(SelectedRows(probe, (1,), "zpd", True, (), tmp_path))
    assert rows["pass_rate"].null_count == 0


def test_keys_of_measuring_do_not_change_under_a_run(zone: Run) -> None:
    for key, value in (("scope", "probe"), ("candidates", 3.0), ("theta_se", 0.2), ("probes", 20)):
        how = zone.config.measure.model_copy(update={key: value})
        with pytest.raises(ZpdError, match=f"measure.{key}: "):
            check_run(zone.config.model_copy(update={"measure": how}))


def test_a_pool_that_is_too_small_for_probes_is_refused(local_ray: None, tmp_path: Path) -> None:
    with pytest.raises(ZpdError, match=r"got 8 of them.*take measure.scope = 'pool'"):
        perform_in(tmp_path, n=200, stages=1, measure={"scope": "probe"})
