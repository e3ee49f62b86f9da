"""Pools of prompts and nothing else, with a grader of one's own: through run, kill, resume and export."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import tomli_w

from tests import tiny
from tests.cli.test_cli import invoke
from tests.pipeline.conftest import selected_of, table_of, write_jsonl
from tests.pipeline.processes import Simulated, call
from tests.pipeline.test_resume import (
    assert_same_files,
    assert_same_result,
    files_of,
    inside_second_stage,
    killed_run,
)
from zpd_ray.matching import zone_of
from zpd_ray.rundir.store import Store

pytestmark = pytest.mark.nightly

GRADER = """\
def has_a_digit(completion: str) -> bool:
    return any(character.isdigit() for character in completion)
"""
EVALUATION = 24


def prompts(n: int) -> list[dict[str, Any] | str]:
    """Some words of the tokenizer's, in any order, of two kinds."""
    rng, words = random.Random(0), " ".join(tiny.TEXTS).split()
    return [
        {
            "id": i,
            "prompt": f"{i}: {' '.join(rng.choices(words, k=rng.randint(3, 12)))}?",
            "group": "ab"[i % 2],
        }
        for i in range(n)
    ]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, a pool of 300 prompts, others to evaluate with, and a grader that processes can import."""
    tiny.build_model(tmp_path / "model", layers=1, chat=True, sharpness=10.0)
    rows = prompts(300 + EVALUATION)
    write_jsonl(tmp_path / "pool.jsonl", rows[:300])
    write_jsonl(tmp_path / "eval.jsonl", rows[300:])
    (tmp_path / "own_grader.py").write_text(GRADER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    return tmp_path


def config_file(directory: Path, **sections: Any) -> Simulated:
    values: dict[str, Any] = {
        "stages": 2,
        "report": False,
        "pool": {
            "path": "pool.jsonl",
            "reference": "prompt",
            "items_per_part": 50,
            "columns": {"item_id": "id"},
        },
        "evaluation": {"path": "eval.jsonl", "reference": "prompt"},
        "model": {"path": "model"},
        "measure": {"grader": "own_grader:has_a_digit", "rollouts": 4, "max_new_tokens": 8},
        "select": {"budget": {"items": 40}},
        "train": {
            "target": "own",
            "batch_size": 8,
            "micro_batch_size": 4,
            "checkpoint_steps": 4,
            "epochs": 3,
            "learning_rate": 3e-3,
        },
        "cluster": {"actors": 1},
        "output": "unused",
    }
    for name, section in sections.items():
        values[name] = values.get(name, {}) | section if isinstance(section, dict) else section
    file = directory / "run.toml"
    file.write_text(tomli_w.dumps(values))
    return Simulated(file)


def run(config: Simulated, output: Path, *more: str) -> Store:
    done = call([*config.command(output), *more])
    assert done.returncode == 0, done.stderr
    return Store(str(output))


def check_measured(store: Store) -> None:
    items, measured = table_of(store, "pool"), table_of(store, "stages/00/measurements/answers")
    assert items.num_rows == 300
    assert items["response"].null_count == items["answer"].null_count == 300
    assert set(items["response_tokens"].to_pylist()) == {0}
    assert measured["error"].null_count == 300
    assert (measured["n_tokens"].to_numpy() < items["prompt_tokens"].to_numpy()).all()
    share = measured["successes"].to_numpy() / measured["rollouts"].to_numpy()
    assert 0.1 < share.mean() < 0.9
    assert np.unique(share).size == 5


def exported(run: Path, to: str, into: Path) -> Any:
    code, told = invoke("export", str(run), "--to", to, "--stage", "0", "--into", str(into))
    assert code == 0, told
    return datasets.load_dataset(str(into), split="train", cache_dir=str(into.with_name("cache")))


def test_it_is_trained_on_right_responses_of_its_own_and_killed_runs_end_with_the_same_bytes(
    directory: Path,
) -> None:
    config = config_file(directory)
    store = run(config, directory / "run")
    check_measured(store)
    selected, chosen = selected_of(store), store.read_json("stages/00/selection.json")
    assert chosen["own"] == chosen["selected"] == selected.num_rows == 40
    said = [turns[0]["content"] for turns in selected["completion"].to_pylist()]
    assert all(any(map(str.isdigit, text)) for text in said)
    told = store.read_json("stages/00/train.json")
    assert told["tokens"] == 3 * sum(selected["response_tokens"].to_pylist()) == 3 * chosen["tokens"]
    canary = store.read_table("stages/00/canary.parquet")
    assert set(canary["response"].to_pylist()) <= set(said)
    assert np.mean(canary["nll_after"].to_numpy()) < np.mean(canary["nll_before"].to_numpy()) - 0.1
    assert 0 < store.read_json("base/metrics.json")["accuracy"] < 1

    again = directory / "again"
    moments: list[Any] = [("stages/00/measurements/answers/*.parquet", 0.0), (inside_second_stage, 0.3)]
    assert list(killed_run(config, again, moments)) == moments
    assert_same_result(again, directory / "run")

    rows = exported(again, "trl", directory / "trl")
    assert [turns[0]["content"] for turns in rows["completion"]] == said
    rows = exported(again, "trl-grpo", directory / "grpo")
    assert rows["answer"] == [None] * 40
    assert {0.25, 0.5, 0.75} & set(rows["pass_rate"])
    for name in ("show", "why"):
        code, printed = invoke(name, str(again), *(["0"] if name == "why" else []))
        assert code == 0, printed
    code, printed = invoke("suspects", str(again))
    assert code == 2
    assert "have no references that could be wrong" in printed
    code, printed = invoke("report", str(again))
    assert code == 0, printed
    page = (again / "report.html").read_text()
    assert "Suspect references" not in page
    assert "prompts, and of the responses that were trained on while" in page


def test_it_is_measured_and_selected_for_reinforcement_learning(directory: Path) -> None:
    """Probes and candidates at later stages, an ability for each group."""
    measure = {"scope": "zone", "probes": 12, "theta_se": 0.4}
    config = config_file(directory, train={"method": "none", "target": "reference"}, measure=measure)
    store = run(
        config, directory / "run", "--set", "ability.groups=true", "--set", "select.diverse.quota=equal"
    )
    check_measured(store)
    selected = selected_of(store)
    assert selected.num_rows == 40
    assert selected["completion"].to_pylist() == [[]] * 40
    low, high = zone_of(0.5)
    assert np.mean((selected["p"].to_numpy() > low) & (selected["p"].to_numpy() < high)) > 0.5
    groups = store.read_json("stages/00/selection.json")["groups"]
    assert abs(groups["a"] - groups["b"]) <= 1
    assert len(store.read_json("stages/01/fit.json")["groups"]["standings"]) >= 2

    again = directory / "again"
    shutil.copytree(directory / "run", again)
    shutil.rmtree(again / "stages/01")
    for file in files_of(again, "stages/00/measurements/answers/*.parquet").values():
        file.unlink()
        break
    for name in ("measured.json", "fit.json", "selection.json", "metrics.json"):
        (again / "stages/00" / name).unlink()
    run(config, again, "--set", "ability.groups=true", "--set", "select.diverse.quota=equal")
    kinds = ("measurements/answers/*.parquet", "fit.json", "selected/*.parquet")
    assert_same_files(again, directory / "run", [f"stages/*/{kind}" for kind in kinds])

    grpo = exported(again, "trl-grpo", directory / "grpo")
    measured = table_of(store, "stages/00/measurements/answers").to_pylist()
    share = {row["item_id"]: row["successes"] / row["rollouts"] for row in measured}
    assert grpo["pass_rate"] == [share[name] for name in grpo["item_id"]]
    verl = exported(again, "verl", directory / "verl")
    assert [row["ground_truth"] for row in verl["reward_model"]] == [None] * 40
    assert [turns[-1]["content"] for turns in verl["prompt"]] == [t[-1]["content"] for t in grpo["prompt"]]
    lines = directory / "jsonl"
    code, told = invoke("export", str(again), "--to", "jsonl", "--stage", "0", "--into", str(lines))
    assert code == 0, told
    assert [json.loads(line)["completion"] for line in (lines / "train.jsonl").read_text().splitlines()] == [
        []
    ] * 40
    for to in ("trl", "llama-factory", "axolotl"):
        code, told = invoke("export", str(again), "--to", to, "--stage", "0", "--into", str(directory / to))
        assert code == 2
        assert f"{to} needs rows with a response to train on" in told
        assert "export to trl-grpo or verl" in told
        assert not (directory / to).exists()
