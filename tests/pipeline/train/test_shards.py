"""The rows of a stage in training order, read where they lie: on a real Ray, without a model."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
from ray.data import DataContext, Dataset

from tests.pipeline.train.selections import STAGE, item, write_selection
from zpd_ray.config_file import validate
from zpd_ray.pipeline.train import shards
from zpd_ray.pipeline.train.shards import from_row, ordered_shards, share_of, with_texts
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.selected import due
from zpd_ray.selection.keys import item_hash

pytestmark = pytest.mark.usefixtures("local_ray")


def shards_of(store: Store, workers: int, seed: int = 0, stage: int = 0, epochs: int = 3) -> list[Dataset]:
    run, made = places_of(store, workers, seed, stage, epochs)
    return [with_texts(run, stage, places) for places in made]


def places_of(
    store: Store, workers: int, seed: int = 0, stage: int = 0, epochs: int = 3
) -> tuple[Run, list[Dataset]]:
    n = store.read_json(f"{STAGE}/selection.json")["selected"]
    rows = [epochs * share_of(n, worker, workers) for worker in range(workers)]
    values = {"output": store.root, "pool": {"path": "-"}, "model": {"path": "-"}, "seed": seed}
    config = validate(values | {"select": {"budget": {"items": n}}})
    run = Run(config, store)
    return run, ordered_shards(run, f"{STAGE}/selected", stage, epochs, rows)


def order_of(store: Store, workers: int, **how: int) -> list[list[str]]:
    """Item ids of each worker's shard, in training order."""
    return [[row["item_id"] for row in shard.iter_rows()] for shard in shards_of(store, workers, **how)]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_order_is_a_function_of_seed_and_workers_alone(workers: int, tmp_path: Path) -> None:
    """The same for any number of files; every item once per epoch; shares that differ by one item at most."""
    n, epochs = 50, 3
    one, many = Store(str(tmp_path / "one")), Store(str(tmp_path / "many"))
    write_selection(one, n, files=1)
    write_selection(many, n, files=7, parts=5)
    order = order_of(one, workers)
    assert order_of(many, workers) == order
    assert Counter(item for shard in order for item in shard) == {f"item {i}": epochs for i in range(n)}
    shares = [len(shard) // epochs for shard in order]
    assert max(shares) - min(shares) <= 1
    for share, shard in zip(shares, order, strict=True):
        passes = [shard[epoch * share : (epoch + 1) * share] for epoch in range(epochs)]
        assert len({frozenset(items) for items in passes}) == 1  # each epoch holds the whole share ...
        assert len({tuple(items) for items in passes}) == epochs  # ... in an order of its own
    assert order_of(one, workers, seed=1) != order
    assert order_of(one, workers, stage=1) != order


def test_more_workers_than_items_leaves_the_rest_empty(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    write_selection(store, 2, files=1)
    assert [len(shard) for shard in order_of(store, workers=3)] == [3, 3, 0]
    run, made = places_of(store, workers=3)  # and gone on from: steps are as many as of the fullest
    assert [with_texts(run, 0, from_row(places, 2)).count() for places in made] == [1, 1, 0]


def test_every_batch_holds_what_a_plain_computation_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the tasks that read rows end in another order than they began."""
    n, workers, epochs, each = 120, 2, 2, 16
    store = Store(str(tmp_path))
    write_selection(store, n, files=3, parts=4)

    def slow_at_first(run: Run, stage: int, places: pa.Table, columns: list[str]) -> pa.Table:
        time.sleep(0.5 if places["epoch"][0].as_py() == 0 else 0.0)
        return due(run, stage, places, columns)

    monkeypatch.setattr(shards, "due", slow_at_first)
    monkeypatch.setattr(shards, "ROWS_AT_ONCE", each)
    monkeypatch.setattr(shards, "TASKS_AHEAD", 4)
    made = shards_of(store, workers, epochs=epochs)
    assert not DataContext.get_current().execution_options.preserve_order  # of nobody else
    for worker, shard in enumerate(made):
        found = pa.concat_tables(shard.iter_batches(batch_size=7, batch_format="pyarrow"))
        wanted = [
            item(i) | {"rank": i, "worker": worker, "epoch": epoch, "order": order}
            for epoch in range(epochs)
            for order, i in sorted(
                (int(item_hash(pa.array([f"item {i}"]), 0, 0, f"train epoch {epoch}")[0] >> np.uint64(1)), i)
                for i in range(worker, n, workers)
            )
        ]
        turn = {"more": None}
        for row in wanted:
            row["messages"] = [message | turn for message in row["messages"]]
            row |= {"response_more": None, "tools": None}
        assert found.to_pylist() == wanted


@pytest.mark.parametrize("first", [0, 1, 37, 64, 119, 120, 500])
def test_who_goes_on_from_a_row_gets_what_follows_and_reads_no_text_before_it(
    first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path / "run"))
    write_selection(store, 60)

    def noted(run: Run, stage: int, places: pa.Table, columns: list[str]) -> pa.Table:
        with (tmp_path / "read").open("a") as file:
            file.write("".join(f"{item_id}\n" for item_id in places["item_id"].to_pylist()))
        return due(run, stage, places, columns)

    monkeypatch.setattr(shards, "ROWS_AT_ONCE", 16)
    run, (places,) = places_of(store, workers=1, epochs=2)
    every = [row["item_id"] for row in places.iter_rows()]
    monkeypatch.setattr(shards, "due", noted)
    rest = with_texts(run, 0, from_row(places, first))
    assert [row["item_id"] for row in rest.iter_rows()] == every[first:]
    read = (tmp_path / "read").read_text().split("\n")[:-1] if every[first:] else []
    assert Counter(read) == Counter(every[first:])


@ray.remote
class Holder:
    """Holds what it was given."""

    def ready(self) -> None: ...


def test_texts_are_read_where_no_cpu_is_free(tmp_path: Path) -> None:
    """A reader that waits for its worker must not keep away the reader of the worker that it waits for."""
    store = Store(str(tmp_path))
    write_selection(store, 20)
    made = shards_of(store, workers=2, epochs=1)
    holder = Holder.options(num_cpus=ray.cluster_resources()["CPU"]).remote()
    ray.get(holder.ready.remote())
    found = list[int]()

    def read() -> None:
        found.extend(row["rank"] for shard in made for row in shard.iter_rows())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(120)
    in_time = not reader.is_alive()
    ray.kill(holder)
    reader.join()
    assert in_time
    assert sorted(found[:10]) == list(range(0, 20, 2))
    assert sorted(found[10:]) == list(range(1, 20, 2))
