"""Tools in exported selections: what the datasets library and TRL's templates are given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.engines.test_turns import CALL, FOUR, PLAIN, TOOLS
from zpd_ray import schema
from zpd_ray.errors import ZpdError
from zpd_ray.export import load
from zpd_ray.rundir.selected import to_selected

WITH_TOOLS = {"item_id": "tools", "messages": FOUR, "response": "Bye", "tools": TOOLS, "answer": "3"}
CALLS = {"item_id": "call", "messages": FOUR[:1], "response": "", "response_more": CALL, "tools": TOOLS}
TEXT = {"item_id": "text", "messages": PLAIN, "response": "Bye", "answer": "3"}


@dataclass
class Rows:
    """Two tables of a selection."""

    items: list[dict[str, Any]]
    all_turns: bool = False
    have_more: bool = True
    prompts_alone: bool = False
    carried: tuple[str, ...] = ()
    place: Path = Path("/export")
    files: int = 2
    tables: list[pa.Table] = field(default_factory=list)

    def __post_init__(self) -> None:
        both = pa.schema([*schema.ITEM, *schema.SELECTION])
        self.tables = [
            to_selected(pa.Table.from_pylist([item | {"score": 0.5}], schema=both)) for item in self.items
        ]

    def __iter__(self) -> Iterator[pa.Table]:
        for table in self.tables:
            rates = np.full(table.num_rows, 0.5)
            yield table.append_column("stage", pa.array([0])).append_column("pass_rate", pa.array(rates))


def whole(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"role": turn["role"], "content": turn["content"]} | json.loads(turn.get("more") or "{}")
        for turn in turns
    ]


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "train.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("to", ["trl", "parquet", "trl-grpo", "hf"])
def test_datasets_reads_messages_with_their_calls(to: str, tmp_path: Path) -> None:
    into = tmp_path / "out"
    into.mkdir()
    load(to).write(Rows([TEXT, WITH_TOOLS, CALLS]), into)
    if to == "hf":
        found = datasets.load_from_disk(str(into))
    else:
        found = datasets.load_dataset(str(into), split="train", cache_dir=str(tmp_path / "cache"))
    assert found["prompt"][0] == whole(PLAIN)
    assert found["prompt"][1] == whole(FOUR)
    assert [tools and json.loads(tools) for tools in found["tools"]] == [None, *[json.loads(TOOLS)] * 2]
    if to != "trl-grpo":
        assert found["completion"][1] == [{"role": "assistant", "content": "Bye"}]
        assert found["completion"][2] == [{"role": "assistant", "content": ""} | json.loads(CALL)]


def test_a_selection_without_tools_is_exported_as_if_there_were_none(tmp_path: Path) -> None:
    load("trl").write(Rows([TEXT, TEXT], have_more=False), tmp_path)
    table = pq.read_table(sorted(tmp_path.glob("*.parquet"))[0])
    assert table.column_names == ["item_id", "prompt", "completion"]
    assert table["prompt"].type.value_type.names == ["role", "content"]
    assert table["prompt"].to_pylist() == [PLAIN]


def test_lines_hold_calls_and_tools_where_there_are_some(tmp_path: Path) -> None:
    load("jsonl").write(Rows([TEXT, WITH_TOOLS]), tmp_path)
    plain, tools = lines(tmp_path)
    assert plain["prompt"] == PLAIN
    assert "tools" not in plain
    assert tools["prompt"] == whole(FOUR)
    assert tools["tools"] == json.loads(TOOLS)


@pytest.mark.parametrize("all_turns", [False, True])
def test_axolotl_trains_on_the_turns_that_the_run_trains_on(all_turns: bool, tmp_path: Path) -> None:
    load("axolotl").write(Rows([WITH_TOOLS], all_turns), tmp_path)
    (row,) = lines(tmp_path)
    answers = [turn["train"] for turn in row["messages"] if turn["role"] == "assistant"]
    assert answers == [all_turns, all_turns, True]
    assert not any(turn["train"] for turn in row["messages"] if turn["role"] != "assistant")
    function = row["messages"][1]["tool_calls"][0]["function"]
    assert json.loads(function["arguments"]) == {"a": 1, "b": 2}
    assert json.loads(row["tools"][0]["function"]["parameters"]) == {}


def test_axolotl_does_not_train_on_a_greeting(tmp_path: Path) -> None:
    greeting = [{"role": "system", "content": "s"}, {"role": "assistant", "content": "Welcome!"}]
    load("axolotl").write(Rows([TEXT | {"messages": [*greeting, *PLAIN]}], all_turns=True), tmp_path)
    (row,) = lines(tmp_path)
    assert [turn["train"] for turn in row["messages"]] == [False, False, False, True, False, True]


@pytest.mark.parametrize("to", ["llama-factory", "verl"])
def test_formats_without_a_place_for_tools_say_so(to: str, tmp_path: Path) -> None:
    with pytest.raises(
        ZpdError, match="item 'tools' has tools, or turns that hold something else; export to"
    ):
        load(to).write(Rows([TEXT, WITH_TOOLS]), tmp_path)


@pytest.mark.parametrize("alone", [True, False])
def test_prompts_alone_go_to_trainers_of_prompts_and_to_no_others(alone: bool, tmp_path: Path) -> None:
    """Without the word a row without a gold answer is a mistake, and verl's reward would fail on it."""
    rows = Rows([], prompts_alone=alone, files=1, have_more=False)
    both = pa.schema([*schema.ITEM, *schema.SELECTION])
    item = {"item_id": "alone", "messages": PLAIN, "score": 0.5}
    rows.tables = [to_selected(pa.Table.from_pylist([item], schema=both), completes=False)]
    for format in ("trl", "axolotl", "llama-factory"):
        with pytest.raises(
            ZpdError, match=rf"{format} needs rows with a response to train on .*'alone' has none"
        ):
            load(format).write(rows, tmp_path)
    if not alone:
        with pytest.raises(ZpdError, match="verl needs rows with a gold answer"):
            load("verl").write(rows, tmp_path)
        return
    for format, column in (("verl", "reward_model"), ("trl-grpo", "answer")):
        (tmp_path / format).mkdir()
        load(format).write(rows, tmp_path / format)
        (file,) = (tmp_path / format).glob("*.parquet")
        (row,) = pq.read_table(file).to_pylist()
        assert row["prompt"] == whole(PLAIN)
        assert row[column] == ({"style": "rule", "ground_truth": None} if format == "verl" else None)
