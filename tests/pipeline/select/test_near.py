"""Near duplicates over a run's parts: who is left out is who a plain count leaves out, with quotas on top."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.conftest import Simulate, questions, table_of, write_jsonl
from tests.pipeline.select.test_quotas import ordered
from zpd_ray.config import Config
from zpd_ray.pipeline.select import near, select
from zpd_ray.report.find import find_items
from zpd_ray.report.why import standing
from zpd_ray.rundir import Run
from zpd_ray.rundir.records import load_selection
from zpd_ray.rundir.store import Store
from zpd_ray.selection import top
from zpd_ray.selection.near import band_keys, texts_of

pytest.importorskip("datasketch")
N = 240
LONG = (
    "A farmer counts the animals of the barn in the morning and again in the evening, before the rain comes."
)


def pool(directory: Path) -> None:
    """Half of the items are alike in threes; the others are short and unlike."""
    rows = [
        row | ({"prompt": f"{LONG * (1 + i // 3 % 4)} {'abcdefgh'[i // 3 % 8] * 40} {i}"} if i % 2 else {})
        for i, row in enumerate(questions(N))
    ]
    write_jsonl(directory / "pool.jsonl", rows)


def kept(config: Config, store: Store, method: str) -> list[tuple[str, str]]:
    """Ids and groups of what has fewer than two better near duplicates, the best first."""
    bands = {}
    for part in store.names("pool"):
        items = store.read_table(f"pool/{part}")
        bands |= dict(zip(items["item_id"].to_pylist(), band_keys(texts_of(items)).tolist(), strict=True))
    met: dict[tuple[int, int], int] = {}
    found = []
    for item_id, group in ranked(config, store, method):
        own = list(enumerate(bands[item_id]))
        if all(met.get(band, 0) < 2 for band in own):
            found.append((item_id, group))
        for band in own:
            met[band] = met.get(band, 0) + 1
    return found


def ranked(config: Config, store: Store, method: str) -> list[tuple[str, str]]:
    of = ordered(config, store, 0, method)
    pairs = [(key, item_id, group) for group, items in of.items() for item_id, _, key in items]
    return [(item_id, group) for _, item_id, group in sorted(pairs)]


@pytest.mark.parametrize("sortable", [10**5, pytest.param(50, marks=pytest.mark.nightly)])
def test_who_is_left_out_is_who_a_plain_count_leaves_out(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sortable: int
) -> None:
    """Also where a shuffle brings them together, since the pool is not small."""
    for module in (select, top):
        monkeypatch.setattr(module, "SORTABLE_ROWS", sortable)
    monkeypatch.setattr(near, "BUCKET_ROWS", 500)
    pool(tmp_path)
    diverse = {"near_duplicates": 2, "quota": "equal"}
    chosen = {"budget": {"items": 90}, "diverse": diverse}
    chosen["beside"] = ["random"] if sortable < N else []
    config, store = simulate(n=N, stages=1, pool={"items_per_part": 100}, select=chosen)
    places = {"zpd": "stages/00", **{name: f"stages/00/beside/{name}" for name in chosen["beside"]}}
    for method, directory in places.items():
        usable, selection = kept(config, store, method), load_selection(store, directory)
        taken = set(table_of(store, f"{directory}/selected")["item_id"].to_pylist())
        assert taken == set().union(
            *(
                [item_id for item_id, of in usable if of == group][:quota]
                for group, quota in selection.quotas.items()
            )
        )
        best = [item_id for item_id, _ in ranked(config, store, method)[:90]]
        left = [item_id for item_id in best if item_id not in {i for i, _ in usable}]
        assert selection.near_duplicates == len(left) > 5
        assert selection.passed_over == len({i for i, _ in usable[:90]} - taken)
        run = Run(config, store)
        why = standing(run, find_items(run, left[:1])[left[0]], 0, method).why
        assert why.endswith("2 better items nearly repeat it")
