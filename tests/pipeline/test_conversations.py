"""Pools of conversations with tools, and of documents of 16,000 tokens, through run, resume and export."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest

from tests import tiny
from tests.cli.test_cli import invoke
from tests.engines.test_turns_nll import chat_model
from tests.pipeline.conftest import table_of
from tests.pipeline.processes import run_here
from tests.trl_labels import learned
from zpd_ray.rundir.store import Store

pytestmark = pytest.mark.nightly

TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {}}}]
CONFIG = """\
output = "run"
stages = 2
report = false
[pool]
path = "pool.jsonl"
max_bad_share = 0.5
items_per_part = 16
[model]
path = "model"
[ability]
allow_extreme = true
[train]
batch_size = 4
micro_batch_size = 1
learning_rate = 1e-3
"""
# What is left of a run that was killed while its first stage trained.
KEPT = ("measurements", "measured.json", "fit.json", "selection.json", "selected", "chosen")


def question(a: int, b: int, spelt: bool) -> list[dict[str, Any]]:
    arguments: Any = {"a": a, "b": b}
    call = {"id": "call00001", "type": "function", "function": {"name": "add", "arguments": arguments}}
    if spelt:
        call["function"] = {"name": "add", "arguments": json.dumps(arguments)}
    return [
        {"role": "user", "content": f"How much is {a} + {b}?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call00001", "content": str(a + b)},
        {"role": "assistant", "content": f"It is {a + b}."},
    ]


def chats(n: int) -> list[dict[str, Any]]:
    """Two questions each, of which each is a call of a tool and an answer."""
    system = {"role": "system", "content": "You can count."}
    return [
        {"id": i, "messages": [system, *question(i, 1, i % 2 == 0), *question(i, 2, False)], "tools": TOOLS}
        for i in range(n)
    ]


def faulty() -> dict[str, dict[str, Any]]:
    """Rows that do not fit, by what is said of them."""
    good = question(1, 2, False)
    broken = {"name": "add", "arguments": "1, 2"}
    return {
        "the arguments of add: no JSON": {
            "messages": [good[0], {"role": "assistant", "content": None, "tool_calls": [broken]}]
        },
        "the last turn is the tool's": {"messages": good[:3]},
        "got the role 'critic'": {"messages": [*good[:3], {"role": "critic", "content": "No."}, good[3]]},
        "tokens, the model takes 1024": {
            "messages": [*good, {"role": "user", "content": "x " * 2000}, good[3]]
        },
        "does not write the text of turn 2 as it is": {
            "messages": [good[0], good[3] | {"content": "It is <|im_end|> 3."}, good[0], good[3]]
        },
    }


def written(directory: Path, rows: list[dict[str, Any]], *more: str) -> Path:
    lines = (json.dumps(row) + "\n" for row in rows)
    (directory / "pool.jsonl").write_text("".join(lines))
    (directory / "run.toml").write_text("\n".join((CONFIG, *more)))
    return directory / "run.toml"


def resumed(config: Path) -> None:
    """A run that goes on from a directory that was killed in its first stage ends with the same files."""
    first, second = config.with_name("run"), config.with_name("again")
    shutil.copytree(first, second)
    shutil.rmtree(second / "stages/01")
    for file in (second / "stages/00").glob("*"):
        if file.name not in KEPT:
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    run_here("run", config, f"output={second}")
    for pattern in ("stages/*/selected/*", "stages/*/adapter/*.safetensors", "stages/*/measurements/*/*"):
        files = [file.relative_to(first) for file in first.glob(pattern)]
        assert len(files) >= 2
        for file in files:
            assert (first / file).read_bytes() == (second / file).read_bytes(), file


def exported(run: Path, into: Path) -> Any:
    code, told = invoke("export", str(run), "--to", "trl", "--stage", "0", "--into", str(into))
    assert code == 0, told
    return datasets.load_dataset(str(into), split="train", cache_dir=str(into.with_name("cache")))


def test_four_turn_chats_with_tools(local_ray: None, tmp_path: Path) -> None:
    chat_model(tmp_path / "model")
    config = written(
        tmp_path, [*chats(48), *faulty().values()], 'turns = "all"', "[select.budget]", "tokens = 2000"
    )
    run_here("run", config)
    store = Store(str(tmp_path / "run"))
    quarantined = table_of(store, "quarantine/pool").to_pylist()
    assert len(quarantined) == len(faulty())
    for place, words in enumerate(faulty(), start=48):
        (row,) = (row for row in quarantined if row["source_row"] == place)
        assert words in row["detail"]
    items, measured = table_of(store, "pool"), table_of(store, "stages/00/measurements/answers")
    assert items.num_rows == 48
    assert measured["n_tokens"].to_pylist() == items["response_tokens"].to_pylist()
    assert measured["error"].null_count == 48
    one_answer = len("It is 3.") + 1  # bytes, and the end of the turn: an upper bound of its tokens
    assert min(items["response_tokens"].to_pylist()) > 2 * one_answer
    selected = store.read_json("stages/00/selection.json")
    assert 1500 < selected["tokens"] <= 2000
    assert store.read_json("stages/00/train.json")["tokens"] == selected["tokens"]
    resumed(config)
    rows = exported(tmp_path / "run", tmp_path / "out")
    assert len(rows) == selected["selected"]
    calls = [turn["tool_calls"] for turn in rows["prompt"][0] if turn.get("tool_calls")]
    assert [call[0]["function"]["name"] for call in calls] == ["add", "add"]
    assert isinstance(calls[0][0]["function"]["arguments"], dict)
    assert json.loads(rows["tools"][0]) == TOOLS
    answers = sorted(turns[0]["content"] for turns in rows["completion"])
    trained = [text.replace("<|im_end|>", "") for text in learned(tmp_path / "model", rows, tmp_path / "trl")]
    assert sorted(map(str.strip, trained)) == answers


def document(rng: random.Random, words: int) -> str:
    known = " ".join(tiny.TEXTS).split()
    return " ".join(rng.choice(known) for _ in range(words))


def test_documents_of_16000_tokens(local_ray: None, tmp_path: Path) -> None:
    tiny.build_model(tmp_path / "model", layers=1, max_length=16384)
    tokenizer, rng = tiny.build_tokenizer(), random.Random(0)
    text = document(rng, 2000)
    words = round(16000 / (len(tokenizer(text).input_ids) / 2000))
    lengths = [words] * 8 + [round(words * 1.1)] * 3
    rows = [
        {"prompt": document(rng, length), "response": f"Natalia sold {i} clips."}
        for i, length in enumerate(lengths)
    ]
    config = written(tmp_path, rows, "[select.budget]", "items = 2")
    run_here("run", config)
    store = Store(str(tmp_path / "run"))
    items, quarantined = table_of(store, "pool"), table_of(store, "quarantine/pool")
    assert Counter(quarantined["reason"].to_pylist()) == {"too long for the model": 3}
    assert "tokens, the model takes 16384" in quarantined["detail"][0].as_py()
    assert items.num_rows == 8
    assert min(items["prompt_tokens"].to_pylist()) > 15000
    assert table_of(store, "stages/00/measurements/answers")["error"].null_count == 8
    resumed(config)
    assert sorted(map(len, exported(tmp_path / "run", tmp_path / "out")["prompt"])) == [1, 1]
