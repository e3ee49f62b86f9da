"""Items and quarantine: every row is in exactly one of them, at its place."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zpd_ray import schema
from zpd_ray.config import SourceConfig
from zpd_ray.graders import load
from zpd_ray.readers import items as items_module
from zpd_ray.readers import rows, shapes
from zpd_ray.readers.columns import check_columns
from zpd_ray.readers.formats import read
from zpd_ray.readers.items import ITEMS, to_items
from zpd_ray.readers.rows import RawRow
from zpd_ray.readers.sources import expand

DATA = Path(__file__).parents[3] / "shared/data"
SOURCE = SourceConfig(path="x")


def items(
    *values: dict, grader: str = "greedy_match", source: SourceConfig = SOURCE
) -> tuple[pa.Table, pa.Table]:
    return to_items([RawRow(row, value) for row, value in enumerate(values)], "f.jsonl", source, load(grader))


def one(**value: object) -> dict:
    good, _ = items({"prompt": "q", "response": "r"} | value)
    return good.to_pylist()[0]


def test_schemas_hold_for_no_rows_and_for_many() -> None:
    for good, bad in (items(), items({"prompt": "q", "response": "r"}, {"x": 1})):
        assert good.schema == ITEMS
        assert bad.schema == schema.QUARANTINE
    assert [name for name in schema.ITEM.names if name in ITEMS.names] == ITEMS.names[:-2]
    assert set(schema.ITEM.names) - set(ITEMS.names) == {"prompt_tokens", "response_tokens"}


def test_every_row_is_in_one_table_at_its_place() -> None:
    found = [
        RawRow(3, {"prompt": "q", "response": "r"}),
        RawRow(4, None, rows.NOT_JSON, '{"a', "why"),
        RawRow(6, {"prompt": "q", "response": ""}),
        RawRow(9, {"prompt": "\ud800", "response": "r"}),
        RawRow(11, {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
    ]
    good, bad = to_items(found, "f.jsonl", SOURCE, load("greedy_match"))
    assert good["source_row"].to_pylist() == [3, 11]
    assert good["messages"].to_pylist() == [
        [{"role": "user", "content": "q", "more": None}],
        [{"role": "user", "content": "a", "more": None}],
    ]
    assert set(good["source_file"].to_pylist() + bad["source_file"].to_pylist()) == {"f.jsonl"}
    assert list(zip(bad["source_row"].to_pylist(), bad["reason"].to_pylist(), strict=True)) == [
        (4, rows.NOT_JSON),
        (6, shapes.EMPTY_RESPONSE),
        (9, rows.NOT_UTF8),
    ]
    assert bad["content"].to_pylist() == [
        '{"a',
        '{"prompt": "q", "response": ""}',
        r'{"prompt": "\ud800", "response": "r"}',
    ]


def test_ids_are_given_or_of_the_content() -> None:
    assert one(item_id=5)["item_id"] == "5"
    assert one()["item_id"] == one(unused="column", group="g")["item_id"]
    assert len(one()["item_id"]) == 32
    different = [
        one(),
        one(prompt="p"),
        one(response="s"),
        one(answer="a"),
        one(choices=["x"]),
        one(choices=["x", "y"]),
    ]
    different += [
        one(prompt='q"]', response="r"),
        one(answer="null"),
        one(choices=["x,y"]),
        one(choices=['x","y']),
    ]
    assert len({item["item_id"] for item in different}) == len(different)


def test_the_content_hash_is_of_what_is_trained_on_and_the_prompt_key_of_the_task() -> None:
    assert one()["content_hash"] == one(item_id="x", answer="a", group="g")["content_hash"]
    assert (
        len(
            {item["content_hash"] for item in (one(), one(prompt="Q"), one(response="s"), one(choices=["x"]))}
        )
        == 4
    )
    same = [one(prompt="Two  words\n"), one(prompt=" two WORDS", response="s", answer="a")]
    system = [{"role": "system", "content": "s"}, {"role": "user", "content": "two words"}]
    same += [one(messages=system)]
    assert len({item["prompt_key"] for item in same}) == 1
    assert (
        one(choices=["x", "Y"])["prompt_key"] == one(choices=["y", "x"])["prompt_key"] != one()["prompt_key"]
    )


def test_the_grader_says_which_gold_answers_will_do() -> None:
    row = {"prompt": "q", "response": "r"}
    values = [row, {**row, "answer": " "}, {**row, "answer": "Monday"}, {**row, "answer": "5 apples"}]
    good, bad = items(*values, grader="numeric")
    assert good["answer"].to_pylist() == ["5 apples"]
    missing, ungradable = items_module.MISSING_ANSWER, items_module.UNGRADABLE_ANSWER
    assert bad["reason"].to_pylist() == [missing, missing, ungradable]
    assert "Monday" in bad["detail"].to_pylist()[2]
    assert items(*values)[0].num_rows == len(values)


def test_a_table_of_items_reads_back_as_the_same_items() -> None:
    values = [{"messages": [{"role": "user", "content": "q"}], "response": "r", "answer": "5", "group": "g"}]
    first, _ = items(*values)
    again, bad = items(*first.to_pylist())
    assert bad.num_rows == 0
    assert again.drop_columns("extra").equals(first.drop_columns("extra"))


@given(
    st.lists(
        st.fixed_dictionaries({"prompt": st.text(), "response": st.text(), "answer": st.text()}), max_size=9
    )
)
def test_text_comes_through_unchanged(values: list[dict]) -> None:
    good, bad = items(*values)
    places = good["source_row"].to_pylist()
    assert sorted(places + bad["source_row"].to_pylist()) == list(range(len(values)))
    for item, value in zip(good.to_pylist(), [values[place] for place in places], strict=True):
        assert (item["messages"][0]["content"], item["response"]) == (value["prompt"], value["response"])


@pytest.mark.skipif(not DATA.exists(), reason="shared data is not here")
def test_every_problem_of_gsm8k_is_an_item() -> None:
    (file,) = expand(str(DATA / "gsm8k/train.jsonl.gz"))
    tables = [to_items(batch, file.path, SOURCE, load("numeric")) for batch in read(file, 1000)]
    good = pa.concat_tables([table for table, _ in tables])
    assert [bad.num_rows for _, bad in tables] == [0] * 6
    assert good["source_row"].to_pylist() == list(range(6000))
    expected = [json.loads(line) for line in gzip.decompress(Path(file.path).read_bytes()).splitlines()]
    assert good["response"].to_pylist() == [row["answer"] for row in expected]
    assert good["answer"].to_pylist() == good["response"].to_pylist()
    assert [turns[0]["content"] for turns in good["messages"].to_pylist()] == [
        row["question"] for row in expected
    ]
    for column in ("item_id", "content_hash", "prompt_key"):
        assert len(set(good[column].to_pylist())) == 6000


@pytest.mark.skipif(not DATA.exists(), reason="shared data is not here")
def test_tal_multiple_choice_by_mapping() -> None:
    path = str(DATA / "math/train.jsonl.gz")
    columns = {
        "item_id": "id",
        "prompt": "problem",
        "response": "solution",
        "choices": "options",
        "group": "level",
    }
    source = SourceConfig(path=path, columns=columns)
    (file,) = expand(path)
    (batch,) = read(file)
    check_columns(batch[0].value or {}, source)
    good, bad = to_items(batch, file.path, source, load("choice"))
    assert (good.num_rows, bad.num_rows) == (1019, 22)
    assert set(bad["reason"].to_pylist()) == {shapes.EMPTY_RESPONSE}
    first = good.to_pylist()[0]
    assert (first["item_id"], first["answer"], first["group"]) == ("tal-scq5k-en-train-1", "A", "1")
    assert first["choices"] == ["$$0$$", "$$1$$", "$$2$$", "$$5$$", "$$8$$"]
