"""The loop with the simulated engine, whose truth is known, on a real Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from tests.pipeline.conftest import (
    Simulate,
    perform_in,
    questions,
    selected_of,
    simulated_values,
    table_of,
    write_jsonl,
)
from tests.truth import true_difficulty
from zpd_ray.config import Config
from zpd_ray.config_file import validate
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.commands import perform
from zpd_ray.rundir.records import load_fit
from zpd_ray.rundir.store import Store


def files_of(store: Store, *directories: str) -> dict[str, bytes]:
    return {
        f"{directory}/{name}": store.read_bytes(f"{directory}/{name}")
        for directory in directories
        for name in store.names(directory)
    }


def test_ability_and_zone_follow_the_truth(replay_run: tuple[Config, Store]) -> None:
    config, store = replay_run
    for stage in range(config.stages):
        fit = load_fit(store, stage)
        truth = stage * config.engine.simulated.gain
        assert abs(fit.ability.theta - truth) < 4 * fit.ability.se + 0.05
        selected = table_of(store, f"stages/{stage:02d}/selected")
        zone = selected.filter(pc.not_equal(selected["reason"], "replay"))
        assert abs(true_difficulty(zone["item_id"]).mean() - truth) < 0.15
        assert np.all(np.diff(zone.sort_by("rank")["score"].to_numpy()) <= 1e-9)


def test_selections_spend_the_budget_once_and_never_twice_on_an_item(
    replay_run: tuple[Config, Store],
) -> None:
    _, store = replay_run
    seen: set[str] = set()
    for stage in range(3):
        selected = table_of(store, f"stages/{stage:02d}/selected")
        assert sorted(selected["rank"].to_pylist()) == list(range(300))
        zone = set(selected.filter(pc.not_equal(selected["reason"], "replay"))["item_id"].to_pylist())
        assert not zone & seen
        seen |= set(selected["item_id"].to_pylist())
        replay = selected.filter(pc.equal(selected["reason"], "replay"))
        assert pc.min(replay["p"]).as_py() >= 0.9
        summary = store.read_json(f"stages/{stage:02d}/selection.json")
        assert summary["selected"] == 300
        assert summary["replay"] == replay.num_rows
        assert sum(summary["groups"].values()) == 300


def test_running_again_touches_nothing_and_a_changed_config_is_refused(
    plain_run: tuple[Config, Store], capsys: pytest.CaptureFixture[str]
) -> None:
    config, store = plain_run
    before = {
        p: p.stat().st_mtime_ns
        for p in Path(store.root).rglob("*")
        if p.is_file() and p.name != ".zpd-ray.lock"
    }
    capsys.readouterr()
    perform("run", config)
    assert before == {p: p.stat().st_mtime_ns for p in before}
    told = capsys.readouterr()
    assert "is finished" in told.err
    assert "untrained" in told.out  # the closing table, at once and without Ray
    changed = config.model_copy(update={"seed": 5})
    with pytest.raises(ZpdError, match=r"seed: 0 -> 5"):
        perform("run", changed)
    more_actors = config.model_copy(update={"cluster": config.cluster.model_copy(update={"actors": 2})})
    perform("run", more_actors)


def test_steps_one_by_one_with_three_actors_and_many_parts_select_the_items_of_the_run(
    plain_run: tuple[Config, Store], tmp_path: Path
) -> None:
    """With as many parts and another number of actors all bytes are the same: tests/pipeline/rounds."""
    config, whole = plain_run
    three = config.cluster.model_copy(update={"actors": 3})
    parts = config.pool.model_copy(update={"items_per_part": 65})
    changed = {"output": str(tmp_path / "steps"), "cluster": three, "pool": parts}
    config = config.model_copy(update=changed)
    for step in ("select", "evaluate", "measure", "fit", "select", "evaluate"):  # it takes those before it
        perform(step, config)
    steps = Store(config.output)
    assert len(steps.names("pool")) > 5 * len(whole.names("pool"))
    for stage in (0, 1):
        assert load_fit(whole, stage) == load_fit(steps, stage)
        assert selected_of(whole, stage).equals(selected_of(steps, stage))  # all but the places in parts


def test_random_ignores_difficulty(simulate: Simulate) -> None:
    _, store = simulate(n=3000, stages=1, select={"method": "random", "budget": {"items": 600}})
    selected = table_of(store, "stages/00/selected")
    b = true_difficulty(selected["item_id"])
    assert abs(b.mean()) < 4 / np.sqrt(600)
    assert 0.85 < b.std() < 1.15


@pytest.fixture(scope="module")
def tokens_run(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Feedback calibration, and a budget of tokens."""
    directory, sections = tmp_path_factory.mktemp("tokens"), {"ability": {"calibration": "feedback"}}
    return perform_in(directory, select={"budget": {"tokens": 777}}, **sections)[1]


def test_a_token_budget_is_not_exceeded_and_nearly_spent(tokens_run: Store) -> None:
    for stage in (0, 1):
        selected = table_of(tokens_run, f"stages/{stage:02d}/selected")
        spent = pc.sum(selected["response_tokens"]).as_py()
        assert 777 - 8 < spent <= 777  # the longest response has 8 tokens


def test_feedback_calibration_moves_the_zone_too(tokens_run: Store) -> None:
    fits = [load_fit(tokens_run, stage) for stage in (0, 1)]
    assert fits[1].ability.theta > fits[0].ability.theta
    assert (
        tokens_run.read_json("stages/01/selection.json")["mean_b"]
        > tokens_run.read_json("stages/00/selection.json")["mean_b"]
    )


def test_a_pool_that_is_all_wrong_is_selected_from_by_nll(simulate: Simulate) -> None:
    _, store = simulate(
        n=900, stages=1, engine={"simulated": {"theta": -10.5}}, ability={"allow_extreme": True}
    )
    fit = load_fit(store, 0)
    assert np.isfinite(fit.ability.theta)
    assert np.isfinite(fit.ability.se)
    assert "all_wrong" in fit.flags
    measured = table_of(store, "stages/00/measurements/answers")
    selected = set(table_of(store, "stages/00/selected")["item_id"].to_pylist())
    nearest = measured.sort_by("nll")["item_id"].to_pylist()[:90]
    assert len(selected & set(nearest)) >= 88  # ties by NLL aside


def test_more_failed_rows_than_allowed_stop_the_run(local_ray: None, tmp_path: Path) -> None:
    pool = write_jsonl(tmp_path / "pool.jsonl", questions(200))
    values = simulated_values(
        tmp_path, pool={"path": str(pool)}, measure={"grader": "tests.pipeline.broken:grade"}
    )
    config = validate(values)
    with pytest.raises(ZpdError, match="broken"):
        perform("run", config)
    assert not Store(config.output).exists("stages/00/measured.json")
