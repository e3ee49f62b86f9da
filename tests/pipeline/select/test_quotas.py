"""Quotas over a run's parts: in each group what a plain sort of its items chooses."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import Simulate, questions, table_of, write_jsonl
from zpd_ray.config import Config
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.select import select
from zpd_ray.report.find import find_items
from zpd_ray.report.why import standing
from zpd_ray.rundir import Run
from zpd_ray.rundir.judging import judge, last_measured
from zpd_ray.rundir.layout import ANSWERS
from zpd_ray.rundir.records import load_events, load_fit, load_selection
from zpd_ray.rundir.store import Store
from zpd_ray.selection import top
from zpd_ray.selection.keys import item_hash, sort_key

N = 400
SIZES = {"": 20, "rare": 8, "some": 72, "most": 300}  # items by group; "" has none


def pool(directory: Path) -> None:
    groups = [name for name, size in SIZES.items() for _ in range(size)]
    rows = [row | {"group": group or None} for row, group in zip(questions(N), groups, strict=True)]
    write_jsonl(directory / "pool.jsonl", rows)


Ordered = list[tuple[str, int, int]]  # ids, tokens, keys


def ordered(config: Config, store: Store, stage: int, method: str) -> dict[str, Ordered]:
    """Each group's items that may be taken, the best first, by Python's own sort."""
    run, fit, rows = Run(config, store), load_fit(store, stage), []
    for part in store.names("pool"):
        known, items = last_measured(run, stage, ANSWERS, part), store.read_table(f"pool/{part}")
        ids = known.answers["item_id"]
        order = item_hash(ids, config.seed, stage, "select")
        score = judge(run, fit, method, part, known, order)["score"].to_numpy()
        columns = (sort_key(score, order).tolist(), ids.to_pylist(), items["group"].to_pylist())
        rows += zip(*columns, known.answers["n_tokens"].to_pylist(), strict=True)
    before = {
        name
        for t in range(stage)
        for name in table_of(store, f"stages/{t:02d}/chosen")["item_id"].to_pylist()
    }
    found = defaultdict(list)
    for key, item_id, group, tokens in sorted(rows, key=lambda row: row[:2]):
        if item_id not in before:
            found[group or ""].append((item_id, tokens, key))
    return found


def bought(items: Ordered, quota: int, unit: str) -> set[str]:
    spent, taken = 0, set()
    for item_id, tokens, _ in items:
        spent += tokens if unit == "tokens" else 1
        if spent > quota:
            break
        taken.add(item_id)
    return taken


@pytest.mark.parametrize(
    ("quota", "budget", "sortable", "stages", "quotas"),
    [
        # 60 over four: the rare have 8 alone, and the three others share 52.
        ("equal", {"items": 60}, 10**5, 1, {"most": 18, "some": 17, "rare": 8, "": 17}),
        pytest.param("equal", {"items": 60}, 50, 2, None, marks=pytest.mark.nightly),
        pytest.param("proportional", {"items": 60}, 10**5, 2, None, marks=pytest.mark.nightly),
        pytest.param("proportional", {"tokens": 500}, 50, 2, None, marks=pytest.mark.nightly),
    ],
)
def test_each_group_gets_the_best_of_its_own_by_its_quota(
    simulate: Simulate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quota: str,
    budget: dict[str, int],
    sortable: int,
    stages: int,
    quotas: dict[str, int] | None,
) -> None:
    monkeypatch.setattr(select, "SORTABLE_ROWS", sortable)
    monkeypatch.setattr(top, "SORTABLE_ROWS", sortable)
    pool(tmp_path)
    chosen: dict[str, Any] = {"budget": budget, "diverse": {"quota": quota}}
    chosen["beside"] = ["random"] if stages > 1 else []
    config, store = simulate(n=N, stages=stages, pool={"items_per_part": 100}, select=chosen)
    for method in chosen["beside"]:
        assert_groups_are_plain(config, store, 0, method, f"stages/00/beside/{method}")
    for stage in range(1, stages):
        assert_groups_are_plain(config, store, stage, "zpd", f"stages/{stage:02d}")
    told = assert_groups_are_plain(config, store, 0, "zpd", "stages/00")
    assert quotas is None or told == quotas
    assert_told(config, store)


def assert_groups_are_plain(
    config: Config, store: Store, stage: int, method: str, directory: str
) -> dict[str, int]:
    items, selection = ordered(config, store, stage, method), load_selection(store, directory)
    rows = table_of(store, f"{directory}/selected").sort_by("rank")
    taken: set[str] = set()
    for group, quota in selection.quotas.items():
        taken |= bought(items[group], quota, selection.unit)
    assert set(rows["item_id"].to_pylist()) == taken
    assert rows["score"].to_pylist() == sorted(rows["score"].to_pylist(), reverse=True)
    assert rows["rank"].to_pylist() == list(range(len(taken)))
    assert sum(selection.quotas.values()) == selection.budget
    return selection.quotas


def assert_told(config: Config, store: Store) -> None:
    """What quotas passed over is counted, and an item of it knows why."""
    selection = load_selection(store, "stages/00")
    event = next(each for each in load_events(store) if each.step == "select")
    assert event.details["passed_over"] == selection.passed_over > 0
    run, chosen = Run(config, store), set(table_of(store, "stages/00/chosen")["item_id"].to_pylist())
    left = [name for name, *_ in ordered(config, store, 0, "zpd")["most"] if name not in chosen]
    why = standing(run, find_items(run, left[:1])[left[0]], 0, "zpd")
    assert "by the quota of its group" in why.why
    assert why.judged is not None
    assert why.threshold is not None
    assert why.judged["score"] <= why.threshold


@pytest.mark.nightly
def test_candidates_are_chosen_by_quotas_too(simulate: Simulate) -> None:
    """Stage 1 measures probes and candidates, among which each of three groups has its share."""
    select = {"budget": {"items": 60}, "diverse": {"quota": "equal"}}
    measure = {"scope": "zone", "candidates": 2.0}
    _, store = simulate(n=1500, pool={"items_per_part": 300}, select=select, measure=measure)
    measured = {
        round["what"]: round["items"] for round in store.read_json("stages/01/measured.json")["rounds"]
    }
    assert measured["candidates"] == 120
    asked = table_of(store, "stages/01/rounds/01/items")["group"].to_pylist()
    assert {name: asked.count(name) for name in set(asked)} == {"g0": 40, "g1": 40, "g2": 40}
    selection = load_selection(store, "stages/01")
    assert selection.groups == selection.quotas == {"g0": 20, "g1": 20, "g2": 20}


def test_quotas_of_a_pool_without_groups_are_refused_before_anything_is_measured(
    simulate: Simulate, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "pool.jsonl", [row | {"group": None} for row in questions(20)])
    with pytest.raises(ZpdError, match=r"^select.diverse.quota asks for groups, and no item of the"):
        simulate(n=20, select={"diverse": {"quota": "equal"}})
    assert not Store(str(tmp_path / "out")).exists("stages")
