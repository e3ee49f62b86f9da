"""Rows of a part by their numbers, and items by their places, as plain tables have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reads import counted, spoil
from zpd_ray import schema
from zpd_ray.config_file import validate
from zpd_ray.errors import ZpdError
from zpd_ray.rundir import Run, Store, places, row_groups
from zpd_ray.rundir.row_groups import GROUP_ROWS, rows_in_group

N = 5 * GROUP_ROWS + 100


def item(i: int, text: str = "x") -> dict[str, object]:
    turns = [{"role": "user", "content": f"{text} {i}", "more": None}] * (1 + i % 3)
    response = None if i % 11 == 0 else f"{text} {i} again"
    return {"item_id": f"i{i}", "messages": turns, "response": response, "choices": ["a"] * (i % 4) or None}


def part(n: int, text: str = "x") -> pa.Table:
    return pa.Table.from_pylist([item(i, text) for i in range(n)], schema=schema.ITEM)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(str(tmp_path_factory.mktemp("store")))
    store.write_table("small", part(N), GROUP_ROWS)
    store.write_table("whole", part(N))
    return store


COLUMNS = ["response", "item_id", "messages", "choices"]


ROWS = st.lists(st.integers(0, N - 1), max_size=40)


@given(st.sampled_from(["small", "whole"]), ROWS, st.sampled_from([1, 20_000, 10**9]))
def test_rows_are_those_of_the_table(store: Store, name: str, rows: list[int], at_once: int) -> None:
    wanted = pa.Table.from_pylist([item(i) for i in rows], schema=schema.ITEM).select(COLUMNS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_groups, "BYTES_AT_ONCE", at_once)
        found = store.read_rows(name, np.array(rows, dtype=np.int64), COLUMNS)
    assert found.schema == wanted.schema
    assert found.to_pylist() == wanted.to_pylist()


def test_rows_that_are_long_lie_in_smaller_groups() -> None:
    assert rows_in_group(2000, 2000 * 20) == rows_in_group(100_000, 100_000) == GROUP_ROWS
    assert rows_in_group(2000, 2000 * 12_000) == 21
    assert rows_in_group(3, 10**9) == rows_in_group(1, 10**9) == 1


def test_of_one_row_little_is_read(tmp_path: Path) -> None:
    """One row group, the columns that are asked for, and the footer: not the part."""
    store, seen = counted(Store(str(tmp_path)))
    rng = np.random.default_rng(0)
    table = part(20 * GROUP_ROWS, "a text of some length ")
    random = pa.array([rng.bytes(50).hex() for _ in range(table.num_rows)])
    for column in ("response", "extra"):
        at = table.schema.get_field_index(column)
        table = table.set_column(at, column, random)
    Store(str(tmp_path)).write_table("pool/part", table, GROUP_ROWS)
    size = (tmp_path / "pool/part").stat().st_size
    store.read_rows("pool/part", np.array([7777]), ["response"])
    one = seen.bytes.pop("pool/part")
    assert one < 0.1 * size  # parquet takes the last 64 kB for the footer at least
    store.read_rows("pool/part", np.arange(0, table.num_rows, 100), ["response"])
    assert seen.bytes["pool/part"] > 0.3 * size
    assert seen.bytes["pool/part"] < 0.7 * size  # all groups, and not the column beside


def test_a_part_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    config = validate(
        {
            "output": str(tmp_path),
            "pool": {"path": "-"},
            "model": {"path": "-"},
            "select": {"budget": {"items": 1}},
        }
    )
    run = Run(config, Store(config.output))
    where = pa.table({"part": ["p"], "row": [3], "own": [False]})
    with pytest.raises(ZpdError, match=r"pool/p is missing, .*expected every file.*put it back"):
        places.items_at(run, 0, where, ["response"])
    run.store.write_table("pool/p", part(10), GROUP_ROWS)
    spoil(run.store, "pool/p", ("response",))
    with pytest.raises(OSError, match=f"cannot read {tmp_path}/pool/p: "):
        places.items_at(run, 0, where, ["response"])
    run.store.write_bytes("pool/p", b"half of it")
    with pytest.raises(OSError, match=f"cannot read {tmp_path}/pool/p: .*too small|magic bytes"):
        places.items_at(run, 0, where, ["response"])


@pytest.mark.parametrize(("most", "count"), [(1, 200), (100, 60), (10**9, 1)])
def test_pieces_are_the_rows_in_their_order(monkeypatch: pytest.MonkeyPatch, most: int, count: int) -> None:
    monkeypatch.setattr(places, "TOKENS_AT_ONCE", most)
    rng, names = np.random.default_rng(0), ("prompt_tokens", "response_tokens")
    lengths = {name: rng.integers(1, 30, 200, dtype=np.int32) for name in names}
    table = pa.table(lengths | {"row": np.arange(200)})
    found = list(places.pieces(table))
    assert pa.concat_tables(found).equals(table)
    tokens = [sum(int(each[name].to_numpy().sum()) for name in lengths) for each in found]
    assert max(tokens) <= most + 58
    assert abs(len(found) - count) <= 5
    assert list(places.pieces(table.slice(0, 0))) == []
