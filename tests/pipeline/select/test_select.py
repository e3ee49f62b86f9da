"""Selection over a run's parts: what a plain sort of everything chooses, also after a kill."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import tomli_w

from tests.pipeline.conftest import Simulate, simulated_values, table_of
from tests.pipeline.processes import RUN_SECONDS, command
from tests.pipeline.test_run import files_of
from zpd_ray.config import Config
from zpd_ray.config_file import validate
from zpd_ray.matching import probability
from zpd_ray.pipeline.commands import perform
from zpd_ray.pipeline.select import select
from zpd_ray.rundir.records import load_fit, load_selection
from zpd_ray.rundir.store import Store
from zpd_ray.selection import top
from zpd_ray.selection.budget import replay_share, resolve_budget
from zpd_ray.selection.keys import item_hash, sort_key


def plain(config: Config, store: Store, stage: int) -> dict[str, list[str]]:
    """Ids by reason in order of rank, from whole columns and Python's own sort."""
    rows = table_of(store, f"stages/{stage:02d}/measurements/answers")
    fit, ids = load_fit(store, stage), rows["item_id"]
    nll, s, k = (rows[name].to_numpy() for name in ("nll", "successes", "rollouts"))
    theta = fit.ability.theta
    b, _, score = fit.judge(nll.astype(float), s.astype(int), k.astype(int), np.zeros(len(nll)))
    key = sort_key(score, item_hash(ids, config.seed, stage, "select"))
    amount = resolve_budget(config.select.budget, len(ids), int(rows["n_tokens"].to_numpy().sum()))
    weight = rows["n_tokens"].to_pylist() if amount.unit == "tokens" else [1] * len(ids)
    mastered = (probability(theta, b) >= config.select.mastered_p) & (s == k)
    again = sorted(zip(item_hash(ids, config.seed, stage, "replay").tolist(), ids.to_pylist(), strict=True))
    mine = dict(zip(ids.to_pylist(), zip(mastered, weight, strict=True), strict=True))
    left = replay_share(amount, config.select.replay)
    replay = affordable([name for _, name in again if mine[name][0]], mine, left)
    before = set[str]().union(
        *(table_of(store, f"stages/{t:02d}/chosen")["item_id"].to_pylist() for t in range(stage))
    )
    order = [name for _, name in sorted(zip(key.tolist(), ids.to_pylist(), strict=True))]
    spent = sum(mine[name][1] for name in replay)
    fresh = [name for name in order if name not in before and name not in replay]
    return {"zone": affordable(fresh, mine, amount.value - spent), "replay": replay}


def affordable(names: list[str], items: dict[str, tuple[bool, int]], budget: int) -> list[str]:
    spent = np.cumsum([items[name][1] for name in names])
    return names[: int(np.searchsorted(spent, budget, side="right"))]


def assert_plain(config: Config, store: Store) -> None:
    for stage in range(config.stages):
        rows = table_of(store, f"stages/{stage:02d}/selected").sort_by("rank")
        replayed = pc.equal(rows["reason"], "replay")
        found = {
            "zone": rows.filter(pc.invert(replayed))["item_id"].to_pylist(),
            "replay": rows.filter(replayed)["item_id"].to_pylist(),
        }
        inside = (rows["p"].to_numpy() >= 0.1) & (rows["p"].to_numpy() <= 0.9)
        zone = np.array(rows["reason"].to_pylist()) == "zone"
        assert not (zone & ~inside).any()
        assert (zone | replayed.to_numpy())[inside].all()
        assert found == plain(config, store, stage)
        assert not store.exists(f"stages/{stage:02d}/scored")


def test_selection_from_few_rows_is_that_of_a_plain_sort(replay_run: tuple[Config, Store]) -> None:
    assert_plain(*replay_run)


@pytest.mark.parametrize(
    ("chosen", "sortable"),
    [
        ({"replay": 0.3, "budget": {"tokens": 900}}, 50),
        pytest.param({}, 50, marks=pytest.mark.nightly),
        pytest.param({"replay": 0.2, "mastered_p": 0.6}, 100_000, marks=pytest.mark.nightly),
    ],
)
def test_selection_is_that_of_a_plain_sort(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch, chosen: dict[str, object], sortable: int
) -> None:
    monkeypatch.setattr(select, "SORTABLE_ROWS", sortable)
    monkeypatch.setattr(top, "SORTABLE_ROWS", sortable)
    assert_plain(*simulate(n=600, pool={"items_per_part": 60}, select=chosen))


def test_rows_of_the_chosen_are_those_of_their_ids(replay_run: tuple[Config, Store]) -> None:
    _, store = replay_run
    for name in store.names("pool"):
        chosen, items = store.read_table(f"stages/00/chosen/{name}"), store.read_table(f"pool/{name}")
        assert items["item_id"].take(chosen["row"]).to_pylist() == chosen["item_id"].to_pylist()


def killed_while_scoring(config: Config) -> None:
    run = Path(config.output)
    file = run.with_suffix(".toml")
    file.write_text(tomli_w.dumps(config.model_dump(exclude_unset=True)))
    arguments = command("run", file)
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + RUN_SECONDS
    while not list(run.glob("stages/00/scored/*.arrow")):
        assert process.poll() is None, "it ended without scoring"
        assert time.monotonic() < deadline, "nothing was scored"
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (run / "stages/00/selection.json").exists(), "killed too late to say anything"


def stopped_before_scoring(config: Config) -> None:
    perform("fit", config)


@pytest.mark.parametrize(
    ("left", "rows"),  # of a part; scoring many parts takes long enough to be killed in it
    [(stopped_before_scoring, 200), pytest.param(killed_while_scoring, 20, marks=pytest.mark.nightly)],
)
def test_what_is_left_of_a_selection_is_not_trusted_and_resuming_gives_the_same_bytes(
    simulate: Simulate, address: str, tmp_path: Path, left: Callable[[Config], None], rows: int
) -> None:
    """What it has kept is damaged here, and another key would show."""
    sections = {"pool": {"items_per_part": rows}, "stages": 1, "select": {"replay": 0.2}}
    _, whole = simulate(output="whole", **sections)
    place = {"output": str(tmp_path / "killed"), "cluster": {"address": address}}
    config = validate(simulated_values(tmp_path, **place, **sections))
    left(config)
    killed = Store(config.output)
    kept = pa.table({name: pa.array(np.zeros(rows, np.uint64)) for name in ("zone", "replay")})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, kept.schema) as file:
        file.write_table(kept)
    killed.write_bytes("stages/00/scored/part-000000.parquet.keys.arrow", sink.getvalue())
    killed.write_bytes("stages/00/scored/.part-000001.parquet.keys.arrow.0123", b"half a file")
    perform("run", config)
    directories = ("stages/00/selected", "stages/00/chosen")
    assert files_of(killed, *directories) == files_of(whole, *directories)
    assert killed.read_json("stages/00/selection.json") == whole.read_json("stages/00/selection.json")
    assert not killed.exists("stages/00/scored")


def test_ties_and_too_few_items_are_counted_and_told(
    simulate: Simulate, capsys: pytest.CaptureFixture[str]
) -> None:
    select = {
        "method": "full",
        "beside": ["difficulty_window"],
        "budget": {"items": 200},
        "window_high": -1.0,
    }
    config, store = simulate(n=400, stages=1, select=select)
    equal = load_selection(store, "stages/00")
    assert (equal.selected, equal.tied, equal.drawn) == (200, 400, 200)
    told = "400 items share the lowest score that was taken by full, and a seeded hash of their ids drew 200"
    assert equal.warnings == [f"{told} of them"]
    ids = table_of(store, "pool")["item_id"]
    first = np.argsort(item_hash(ids, config.seed, 0, "select"))[:200]
    assert set(ids.take(first).to_pylist()) == set(table_of(store, "stages/00/chosen")["item_id"].to_pylist())

    few = load_selection(store, "stages/00/beside/difficulty_window")
    assert (few.selected, few.tied, few.drawn) == (400 - few.left_out, 0, 0)
    short = f"only {few.selected} of 200 items were left to select"
    assert few.warnings == [
        short,
        f"{few.left_out} items have no score by difficulty_window, and could not be selected",
    ]
    said = capsys.readouterr().err
    assert f"stage 0: {told}" in said
    assert f"stage 0, difficulty_window, which is not trained on: {short}" in said
