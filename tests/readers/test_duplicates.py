"""Duplicates, clashing ids and overlap do not depend on the order in which rows come."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from zpd_ray import schema
from zpd_ray.config import SourceConfig
from zpd_ray.graders import load
from zpd_ray.readers.duplicates import ID_USED_TWICE, clashing_ids, drop_duplicates, drop_overlap
from zpd_ray.readers.items import ITEMS, to_items
from zpd_ray.readers.rows import RawRow


def table(*contents: tuple[str | None, str, str]) -> pa.Table:
    """Items of (item_id, prompt, response), places in order over two files."""
    parts = []
    for row, (item_id, prompt, response) in enumerate(contents):
        value = {"item_id": item_id, "prompt": prompt, "response": response}
        file = f"f{row % 2}"
        parts.append(to_items([RawRow(row, value)], file, SourceConfig(path="x"), load("greedy_match"))[0])
    return pa.concat_tables([ITEMS.empty_table(), *parts])


few = st.sampled_from("abc")
many = st.lists(st.tuples(st.none() | few, few, few), max_size=25)


@given(many, st.randoms(use_true_random=False))
def test_one_item_of_each_content_is_kept_that_of_the_first_place(
    contents: list[tuple], random: object
) -> None:
    items = table(*contents)
    kept, dropped = drop_duplicates(items)
    first: dict[tuple, tuple] = {}
    for item in sorted(items.to_pylist(), key=lambda item: (item["source_file"], item["source_row"])):
        first.setdefault(
            (item["messages"][0]["content"], item["response"]), (item["source_file"], item["source_row"])
        )
    assert sorted(
        zip(kept["source_file"].to_pylist(), kept["source_row"].to_pylist(), strict=True)
    ) == sorted(first.values())
    assert dropped == len(contents) - len(first)
    assert kept["item_id"].to_pylist() == sorted(kept["item_id"].to_pylist())
    order = list(range(len(contents)))
    random.shuffle(order)
    shuffled, _ = drop_duplicates(items.take(pa.array(order, pa.int64())))
    assert shuffled.equals(kept)


@given(many, st.randoms(use_true_random=False))
def test_an_id_stands_for_one_content(contents: list[tuple], random: object) -> None:
    items = table(*contents)
    kept, quarantined = clashing_ids(items)
    assert kept.num_rows + quarantined.num_rows == len(contents)
    by_id: dict[str, set] = {}
    for item in kept.to_pylist():
        by_id.setdefault(item["item_id"], set()).add(item["content_hash"])
    assert all(len(hashes) == 1 for hashes in by_id.values())
    assert set(by_id) == set(items["item_id"].to_pylist())
    assert quarantined.schema == schema.QUARANTINE
    assert set(quarantined["reason"].to_pylist()) <= {ID_USED_TWICE}
    order = list(range(len(contents)))
    random.shuffle(order)
    again = clashing_ids(items.take(pa.array(order, pa.int64())))
    assert again[0].equals(kept)
    assert again[1].equals(quarantined)


def test_the_first_place_keeps_a_clashing_id_and_repeats_of_it_are_no_clash() -> None:
    kept, quarantined = clashing_ids(
        table(("x", "q", "1"), ("x", "q", "2"), ("x", "q", "1"), (None, "q", "2"))
    )
    assert sorted(kept["source_row"].to_pylist()) == [0, 2, 3]
    assert quarantined["source_row"].to_pylist() == [1]
    unique, dropped = drop_duplicates(kept)
    assert (sorted(unique["source_row"].to_pylist()), dropped) == ([0, 3], 1)


def test_overlap_is_by_prompt() -> None:
    pool = table((None, "Two words", "a"), (None, "other", "b"), (None, "two  WORDS ", "c"))
    evaluation = table((None, "TWO words", "z"))
    kept, dropped = drop_overlap(pool, evaluation["prompt_key"].to_numpy())
    assert (kept["response"].to_pylist(), dropped) == (["b"], 2)
    assert drop_overlap(pool, np.array([], np.uint64))[1] == 0
