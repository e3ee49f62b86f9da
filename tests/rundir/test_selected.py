"""A selection is written as trainers take it, and read back as items."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from tests import tiny
from tests.trl_labels import learned
from zpd_ray import schema
from zpd_ray.rundir.selected import read_selected, to_selected
from zpd_ray.rundir.store import Store

TURN = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text()})
ITEMS = st.lists(
    st.fixed_dictionaries({"messages": st.lists(TURN, min_size=1, max_size=3), "response": st.text()}),
    max_size=5,
)


def selection(rows: list[dict]) -> pa.Table:
    both = pa.schema([*schema.ITEM, *schema.SELECTION])
    return pa.Table.from_pylist(
        [{"item_id": f"i{n}", "rank": n} | row for n, row in enumerate(rows)], schema=both
    )


@given(ITEMS)
def test_items_come_back(rows: list[dict]) -> None:
    import tempfile

    items = selection(rows)
    with tempfile.TemporaryDirectory() as directory:
        store = Store(directory)
        store.write_table("selected.parquet", to_selected(items))
        again = read_selected(store, "selected.parquet", ["item_id", "rank"])
    assert again.to_pylist() == items.select(again.column_names).to_pylist()


def test_trl_trains_on_the_responses_and_on_nothing_else(tmp_path: Path) -> None:
    """SFTTrainer takes the file as it is: what it gives to the loss is the reference, not the prompt."""
    from datasets import load_dataset

    model = tiny.build_model(tmp_path / "model", layers=1, chat=True)
    rows = [
        {
            "messages": [{"role": "user", "content": f"How many clips did {who} sell?"}],
            "response": f"{n} clips in May",
            "answer": str(n),
            "extra": '{"id": 7}',
        }
        for n, who in ((48, "Natalia"), (12, "Weng"))
    ]
    pq.write_table(to_selected(selection(rows)), tmp_path / "part-000000.parquet")
    saved = load_dataset("parquet", data_files=str(tmp_path / "*.parquet"), split="train")
    assert learned(model, saved, tmp_path / "out") == sorted(row["response"] for row in rows)
