"""What was selected is joined with the pool, as trainers take it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import tiny
from tests.reads import counted
from tests.trl_labels import learned
from zpd_ray import schema
from zpd_ray.config_file import validate
from zpd_ray.rundir import Run, Store, places
from zpd_ray.rundir.row_groups import GROUP_ROWS
from zpd_ray.rundir.selected import TURNS, due, ranked, selected_tables, to_selected

ITEMS, PARTS = 90, 3
PART = "part-{:06d}.parquet"


def item(i: int) -> dict[str, Any]:
    """Every fifth one has a call of a tool in its response, and no text."""
    calls = '{"tool_calls": []}' if i % 5 == 0 else None
    return {
        "item_id": f"i{i}",
        "messages": [{"role": "user", "content": f"question {i}", "more": None}],
        "response": "" if calls else f"reference {i}",
        "response_more": calls,
        "tools": "[]" if calls else None,
        "answer": str(i),
        "choices": ["a", "b"] if i % 2 else None,
        "group": f"g{i % 3}",
        "extra": f'{{"i": {i}}}',
        "source_file": "pool.jsonl",
        "source_row": i,
        "prompt_tokens": 2,
        "response_tokens": 3,
    }


OWN_TOKENS = 7


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """30 of 90 items of three parts, in two files; of each third one an own response was kept."""
    values = {
        "output": str(tmp_path),
        "pool": {"path": "-"},
        "model": {"path": "-"},
        "measure": {"grader": "exact"},
        "select": {"budget": {"items": 30}},
        "train": {"target": "own"},
    }
    store = Store(str(tmp_path))
    for number in range(PARTS):
        numbers = range(number, ITEMS, PARTS)
        rows = [item(i) for i in numbers]
        name = PART.format(number)
        store.write_table(f"pool/{name}", pa.Table.from_pylist(rows, schema=schema.ITEM), GROUP_ROWS)
        own = [{"own": said(i), "own_tokens": OWN_TOKENS if said(i) else None} for i in numbers]
        measured = pa.Table.from_pylist(own, schema=schema.MEASUREMENT)
        store.write_table(f"stages/00/measurements/answers/{name}", measured, GROUP_ROWS)
    table = pa.Table.from_pylist([place(rank, i) for rank, i in enumerate(chosen())], schema=schema.RANK)
    for number, start in enumerate((0, 20)):
        store.write_table(f"stages/00/selected/{PART.format(number)}", table.slice(start, 20))
    return Run(validate(values), store)


def said(i: int) -> str | None:
    return f"own {i}" if i % 4 == 0 else None


def chosen() -> list[int]:
    return np.random.default_rng(0).permutation(ITEMS)[:30].tolist()


def place(rank: int, i: int) -> dict[str, Any]:
    own = said(i) is not None
    told = {"b": rank / 7, "b_sd": 0.5, "p": 0.5, "score": -float(rank), "reason": "zone", "own": own}
    known = {name: item(i)[name] for name in ("item_id", "group", "prompt_tokens", "response_tokens")}
    at = {"part": PART.format(i % PARTS), "row": i // PARTS, "rank": rank}
    return known | at | told | ({"response_tokens": OWN_TOKENS} if own else {})


def wanted(completes: bool = True) -> list[dict[str, Any]]:
    rows = []
    for rank, i in enumerate(chosen()):
        row = item(i) | {k: v for k, v in place(rank, i).items() if k not in ("part", "row", "own")}
        turn = {"role": "assistant", "content": row.pop("response"), "more": row.pop("response_more")}
        turn |= {"content": said(i), "more": None} if said(i) else {}
        rows.append(row | {"prompt": row.pop("messages"), "completion": [turn] if completes else []})
    return rows


def test_the_items_of_a_selection_come_in_order_of_rank(run: Run) -> None:
    tables = list(selected_tables(run, 0))
    assert [table.num_rows for table in tables] == [20, 10]
    assert all(table.schema == schema.SELECTED for table in tables)
    assert pa.concat_tables(tables).to_pylist() == wanted()


def test_pieces_make_no_difference(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "TOKENS_AT_ONCE", 12)
    assert pa.concat_tables(selected_tables(run, 0)).to_pylist() == wanted()


def test_where_nothing_is_trained_on_completions_are_empty(run: Run) -> None:
    config = run.config
    pool = config.pool.model_copy(update={"reference": "none"})
    train = config.train.model_copy(update={"target": "reference"})
    prompts = Run(config.model_copy(update={"pool": pool, "train": train}), run.store)
    completions = pa.concat_tables(selected_tables(prompts, 0))["completion"]
    assert completions.to_pylist() == [[]] * 30
    rows = due(prompts, 0, next(ranked(prompts, 0)), [])
    assert rows["response"].to_pylist() == [""] * 20
    assert rows["response_more"].null_count == 20


def test_what_is_due_has_the_responses_that_are_trained_on(run: Run) -> None:
    rows = due(run, 0, next(ranked(run, 0)), ["rank", "item_id"])
    assert rows.column_names == [*TURNS, "rank", "item_id"]
    for row, like in zip(rows.to_pylist(), wanted(), strict=False):
        assert row["messages"] == like["prompt"]
        turn = {"role": "assistant", "content": row["response"], "more": row["response_more"]}
        assert [turn] == like["completion"]
        assert (row["tools"], row["rank"], row["item_id"]) == (like["tools"], like["rank"], like["item_id"])


def test_each_part_is_opened_once_for_a_file(run: Run) -> None:
    store, seen = counted(run.store)  # no local one to it: parts are read by threads
    assert pa.concat_tables(selected_tables(Run(run.config, store), 0)).to_pylist() == wanted()
    assert [seen.opened[f"pool/{PART.format(number)}"] for number in range(PARTS)] == [2] * PARTS


def test_trl_trains_on_the_responses_and_on_nothing_else(tmp_path: Path) -> None:
    """SFTTrainer takes the table as it is: what it gives to the loss is the reference, not the prompt."""
    from datasets import load_dataset

    model = tiny.build_model(tmp_path / "model", layers=1, chat=True)
    rows = [
        {
            "item_id": f"i{n}",
            "messages": [{"role": "user", "content": f"How many clips did {who} sell?"}],
            "response": f"{n} clips in May",
            "answer": str(n),
            "extra": '{"id": 7}',
        }
        for n, who in ((48, "Natalia"), (12, "Weng"))
    ]
    both = pa.schema([*schema.ITEM, *schema.SELECTION])
    pq.write_table(to_selected(pa.Table.from_pylist(rows, schema=both)), tmp_path / "part-000000.parquet")
    saved = load_dataset("parquet", data_files=str(tmp_path / "*.parquet"), split="train")
    assert learned(model, saved, tmp_path / "out") == sorted(row["response"] for row in rows)
