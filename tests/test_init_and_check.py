"""From data of other people's tools to prompts as the model reads them: ``init``, then ``check``."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests import tiny
from zpd_ray.cli import app as cli


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in pairs]


# name -> a row, what the prompt must end with (as the model reads it), the reference, the gold answer.
SHAPES: dict[str, tuple[dict[str, Any], str, str, str | None]] = {
    "OpenAI messages": ({"messages": turns(("user", "Add 1 2."), ("assistant", "3"))}, "Add 1 2.", "3", None),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": "Add 1 2."}, {"from": "gpt", "value": "3"}]},
        "Add 1 2.",
        "3",
        None,
    ),
    "Alpaca": ({"instruction": "Add.", "input": "1 2", "output": "3"}, "Add.\n\n1 2", "3", None),
    "GSM8K": ({"question": "Add 1 2.", "answer": "1+2\n#### 3"}, "Add 1 2.", "1+2\n#### 3", "1+2\n#### 3"),
    "TRL texts": ({"prompt": "Add 1 2.", "completion": "3"}, "Add 1 2.", "3", None),
    "TRL messages": (
        {"prompt": turns(("user", "Add 1 2.")), "completion": turns(("assistant", "3"))},
        "Add 1 2.",
        "3",
        None,
    ),
    "MATH": ({"problem": "Add 1 2.", "solution": "It is 3.", "answer": "3"}, "Add 1 2.", "It is 3.", "3"),
    "verl": (
        {
            "data_source": "sums",
            "prompt": turns(("user", "Add 1 2.")),
            "reward_model": {"style": "rule", "ground_truth": "3"},
        },
        "Add 1 2.",
        "3",
        "3",
    ),
    "Dolly": (
        {"instruction": "Add.", "context": "1 2", "response": "3", "category": "sums"},
        "Add.\n\n1 2",
        "3",
        None,
    ),
    "OpenOrca": (
        {"system_prompt": "Be brief.", "question": "Add 1 2.", "response": "3"},
        "Be brief.\n\nAdd 1 2.",
        "3",
        None,
    ),
    "capitals": ({"Question": "Add 1 2.", "Answer": "3"}, "Add 1 2.", "3", "3"),
    "text and target": ({"text": "Add 1 2.", "target": "3"}, "Add 1 2.", "3", None),
    "multiple choice": (
        {"question": "1+2?", "choices": ["2", "3"], "answer": "B"},
        "1+2?",
        "B",
        "B",
    ),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [json.dumps(row) for row, *_ in SHAPES.values()] + ["Be brief.\nAdd 1 2."]
    return tiny.build_model(tmp_path_factory.mktemp("llama"), texts=texts, layers=1)


Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def command() -> Cli:
    def call(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli.app, list(arguments))
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output

    return call


@pytest.mark.parametrize("name", SHAPES)
def test_data_of_other_tools_goes_in_by_init_and_is_rendered_right(
    name: str, model: Path, tmp_path: Path, command: Cli
) -> None:
    row, prompt, reference, answer = SHAPES[name]
    data, config = tmp_path / "data.jsonl", tmp_path / "run.toml"
    data.write_text(f"{json.dumps(row)}\n" * 3)
    code, said = command("init", str(data), str(config), "--model", str(model))
    assert code == 0, said
    code, said = command("check", str(config))
    assert code == 0, said
    assert "of the first 3 rows 3 are items" in said
    assert f"{prompt!r}"[1:-1] + "\\n'" in said
    assert f"reference: '{reference!r}"[:-1].replace("''", "'") in said
    if answer is not None:
        assert f"graded against: {answer!r}" in said
    assert not (tmp_path / "runs").exists()  # nothing is written


def test_check_tells_what_would_be_left_out_and_what_would_be_imported(
    model: Path, tmp_path: Path, command: Cli
) -> None:
    data, config = tmp_path / "data.csv", tmp_path / "run.toml"
    with data.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "response", "answer"])
        writer.writerows([["Add 1 2.", "3", "3"], ["Add 2 2.", "", "4"], ["Add", "1 " * 3000, "1"]])
    assert command("init", str(data), str(config), "--model", str(model))[0] == 0
    code, said = command("check", str(config), "--set", "measure.grader=tests.pipeline.broken:grade")
    assert code == 0, said
    assert "of the first 3 rows 1 are items" in said
    assert "1 x empty response; first in row 1" in said
    assert "1 x too long for the model" in said
    more = tmp_path / "more.jsonl"
    more.write_text('{"text": "Add 1 2."}\n')
    code, refused = command("check", str(config), "--set", f"pool.path=['{data}', '{more}']")
    assert code == 2  # as a run would, which checks each file
    assert "'text' make none of the known shapes" in refused
    assert "the model takes" in said
    assert "imports code that the config names: grader tests.pipeline.broken:grade" in said


def test_check_shows_the_answers_that_are_trained_on(tmp_path: Path, command: Cli) -> None:
    model, chat = tiny.build_model(tmp_path / "model", layers=1, chat=True), []
    for question, answer in (("Add 1 2.", "3"), ("And 3?", "6")):
        chat += turns(("user", question), ("assistant", answer))
    data, config = tmp_path / "data.jsonl", tmp_path / "run.toml"
    data.write_text(f"{json.dumps({'messages': chat})}\n" * 3)
    assert command("init", str(data), str(config), "--model", str(model))[0] == 0
    assert "reference: '6<|end|>'" in command("check", str(config))[1]
    every = command("check", str(config), "--set", "train.turns=all")[1]
    assert "reference: '3<|end|>6<|end|>'" in every
    assert "Add 1 2.<|end|>\\n<|start|>assistant\\n'" in every


def test_paths_are_written_as_the_config_has_to_name_them(
    model: Path, tmp_path: Path, command: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("data", "configs"):
        (tmp_path / name).mkdir()
    (tmp_path / "base").symlink_to(model)
    for part in "ab":
        (tmp_path / f"data/{part}.jsonl").write_text(f'{{"prompt": "Add {part}.", "response": "3"}}\n')
    assert command("init", "data/*.jsonl", "configs/run.toml", "--model", "base")[0] == 0
    code, said = command("check", "configs/run.toml")
    assert code == 0, said
    assert "of the first 2 rows 2 are items" in said
    code, said = command("init", "data/a.jsonl", "nowhere/run.toml")
    assert code == 2
    assert "cannot write nowhere/run.toml" in said


def test_a_config_that_is_there_is_not_written_over(tmp_path: Path, command: Cli) -> None:
    config = tmp_path / "run.toml"
    config.write_text("mine")
    code, said = command("init", str(tmp_path), str(config))
    assert code == 2
    assert "is there already" in said
    assert config.read_text() == "mine"


def test_columns_that_nobody_knows_are_told_with_what_to_write(tmp_path: Path, command: Cli) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"frage": "1+2?", "antwort": "3"}\n')
    code, said = command("init", str(data), str(tmp_path / "run.toml"))
    assert code == 2
    assert "'frage', 'antwort'" in said
    assert 'columns = { prompt = "...", response = "..." }' in said
    assert not (tmp_path / "run.toml").exists()


def test_the_same_as_json(model: Path, tmp_path: Path) -> None:
    data, config = tmp_path / "data.jsonl", tmp_path / "run.toml"
    data.write_text(
        '{"prompt": "Add 1 2.", "response": "3", "answer": "4"}\n{"prompt": "Add", "response": ""}\n'
    )

    def asked(*arguments: str) -> Any:
        done = CliRunner().invoke(cli.app, [*arguments, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    made = asked("init", str(data), str(config), "--model", str(model))
    assert made == {"config": str(config), "shape": "prompt_response"}
    seen = asked("check", str(config), "--set", "measure.grader=tests.pipeline.broken:grade")
    pool = seen["pool"]
    assert (pool["files"], pool["rows"], pool["items"], pool["shape"]) == (
        1,
        2,
        1,
        "prompt_response",
    )
    assert pool["first"] == str(data)
    assert pool["size"] == data.stat().st_size
    [bad] = pool["quarantined"]
    assert (bad["reason"], bad["count"], bad["file"], bad["row"]) == ("empty response", 1, str(data), 1)
    assert set(pool["tokens"]) == {"prompt", "response"}
    assert 0 < pool["tokens"]["prompt"]["min"] <= pool["tokens"]["prompt"]["max"] <= pool["limit"]
    [shown] = pool["prompts"]
    assert "Add 1 2." in shown["prompt"]
    assert shown["answer"] == "4"
    assert seen["evaluation"] is None
    assert seen["imported_code"] == ["grader tests.pipeline.broken:grade"]


def test_neither_needs_ray_nor_says_more_at_its_end(model: Path, tmp_path: Path) -> None:
    import subprocess

    data, config = tmp_path / "data.jsonl", tmp_path / "run.toml"
    data.write_text('{"prompt": "Add 1 2.", "response": "3"}\n')
    code = (
        "import sys\nfrom zpd_ray.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'ray' not in sys.modules"
    )
    for arguments in (["init", str(data), str(config), "--model", str(model)], ["check", str(config)]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "leaked" not in done.stderr, "triton, where there is one, lists what an end in a hurry left"


ALONE, CHOICES, TEMPLATE = "gold answer alone", "choices that their prompt does not show", "no chat template"


@pytest.mark.parametrize(
    ("row", "notes"),
    [
        ({"prompt": "Add 1 2.", "answer": "3"}, {ALONE}),
        (SHAPES["multiple choice"][0], {ALONE, CHOICES}),
        (SHAPES["OpenOrca"][0], {TEMPLATE}),
        (SHAPES["MATH"][0], set()),
    ],
)
def test_what_would_go_wrong_without_a_word_is_noted(
    row: dict[str, Any], notes: set[str], model: Path, tmp_path: Path, command: Cli
) -> None:
    data, config = tmp_path / "data.jsonl", tmp_path / "run.toml"
    data.write_text(f"{json.dumps(row)}\n" * 2)
    assert command("init", str(data), str(config), "--model", str(model))[0] == 0
    code, said = command("check", str(config))
    assert code == 0, said
    assert {note for note in (ALONE, CHOICES, TEMPLATE) if note in said} == notes
