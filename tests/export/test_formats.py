"""Each format is consumed by the library it is for, or checked against the schema that it documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from tests import tiny
from tests.pipeline.conftest import selected_of, table_of
from tests.taken import lines_of
from tests.taken import row as source_row
from tests.trl_labels import learned
from zpd_ray.export.exporting import export_selection
from zpd_ray.rundir import Run

SCORES = ["stage", "rank", "reason", "b", "b_sd", "p", "score", "pass_rate"]
Export = Callable[..., Path]


@pytest.fixture
def exported(taken: Run, tmp_path: Path) -> Export:
    """``exported("trl", stage=0)`` is the directory."""

    def write(to: str, **asked: Any) -> Path:
        export_selection(taken, to, str(tmp_path / to), **asked)
        return tmp_path / to

    return write


@pytest.fixture
def loaded(exported: Export, tmp_path: Path) -> Callable[..., datasets.Dataset]:
    """The same, read by ``datasets.load_dataset``."""

    def load(to: str, **asked: Any) -> datasets.Dataset:
        directory = str(exported(to, **asked))
        return datasets.load_dataset(directory, split="train", cache_dir=str(tmp_path / "cache"))

    return load


def ranked(run: Run, stage: int) -> list[dict[str, Any]]:
    """What the stage selected, as it stands in the run."""
    rows: list[dict[str, Any]] = selected_of(run.store, stage).to_pylist()
    return rows


def pass_rates(run: Run, stage: int) -> dict[str, float]:
    rows = table_of(run.store, f"stages/{stage:02d}/measurements/answers").to_pylist()
    return {row["item_id"]: row["successes"] / row["rollouts"] for row in rows if row["rollouts"]}


def test_trl_trains_on_the_answers_and_on_nothing_else(
    taken: Run, loaded: Callable[..., datasets.Dataset], tmp_path: Path
) -> None:
    model = tiny.build_model(tmp_path / "model", layers=1, chat=True)
    rows = loaded("trl", stage=0, scores=True, extra=True)
    wanted = [source_row(int(row["item_id"][1:]))["response"] for row in ranked(taken, 0)]
    assert len(wanted) == 60
    assert learned(model, rows, tmp_path / "out") == sorted(wanted)


def plain(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turns as trainers have them where there is nothing but text."""
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


def test_grpo_has_prompts_and_what_rewards_take(
    taken: Run, loaded: Callable[..., datasets.Dataset], tmp_path: Path
) -> None:
    """A step of GRPOTrainer: its reward function gets the answers and the measured pass rates."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    rows, selected, rates = loaded("trl-grpo", stage=1), ranked(taken, 1), pass_rates(taken, 1)
    assert rows.column_names == ["item_id", "prompt", "answer", "pass_rate"]
    assert rows["prompt"][:] == [plain(row["prompt"]) for row in selected]
    assert rows["pass_rate"][:] == [rates[row["item_id"]] for row in selected]
    assert 0 < sum(rates.values()) < len(rates)
    seen: list[tuple[str, float]] = []

    def reward(completions: list, answer: list[str], pass_rate: list[float], **_: Any) -> list[float]:
        seen.extend(zip(answer, pass_rate, strict=True))
        return [float(gold in text[0]["content"]) for gold, text in zip(answer, completions, strict=True)]

    model = tiny.build_model(tmp_path / "model", layers=1, chat=True)
    settings = {"per_device_train_batch_size": 2, "num_generations": 2, "max_completion_length": 4}
    GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=str(tmp_path / "out"),
            max_steps=1,
            report_to="none",
            use_cpu=True,
            bf16=False,
            **settings,
        ),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(model),
    ).train()
    assert seen
    assert set(seen) <= {(row["answer"], rates[row["item_id"]]) for row in selected}


def test_llama_factory_is_what_its_readme_describes(taken: Run, exported: Export) -> None:
    directory = exported("llama-factory", stage=0)
    (description,) = json.loads((directory / "dataset_info.json").read_text()).values()
    assert description["formatting"] == "sharegpt"
    tags, rows = description["tags"], lines_of(directory / description["file_name"])
    assert [row["item_id"] for row in rows] == [row["item_id"] for row in ranked(taken, 0)]
    for row in rows:
        turns = row[description["columns"]["messages"]]
        assert [turn[tags["role_tag"]] for turn in turns] == [tags["user_tag"], tags["assistant_tag"]]
        assert turns[1][tags["content_tag"]] == source_row(int(row["item_id"][1:]))["response"]


def test_axolotl_reads_messages_and_trains_on_the_last(taken: Run, exported: Export) -> None:
    import yaml

    directory = exported("axolotl", stage=0)
    (entry,) = yaml.safe_load((directory / "axolotl.yaml").read_text())["datasets"]
    assert (entry["type"], entry["ds_type"], entry["roles_to_train"]) == ("chat_template", "json", [])
    assert entry["path"] == str(directory / "train.jsonl")
    rows = lines_of(Path(entry["path"]))
    assert [row["item_id"] for row in rows] == [row["item_id"] for row in ranked(taken, 0)]
    for row in rows:
        turns = row[entry["field_messages"]]
        assert [set(turn) - {"role", "content"} for turn in turns] == [{entry["message_field_training"]}] * 2
        assert [(turn["role"], turn[entry["message_field_training"]]) for turn in turns] == [
            ("user", False),
            ("assistant", True),
        ]


def test_verl_has_the_five_columns_of_its_documentation(
    taken: Run, loaded: Callable[..., datasets.Dataset]
) -> None:
    rows = loaded("verl", scores=True)
    assert rows.column_names == ["data_source", "prompt", "ability", "reward_model", "extra_info"]
    selected = [row for stage in (0, 1) for row in ranked(taken, stage)]
    for number, (row, item) in enumerate(zip(rows, selected, strict=True)):
        own = source_row(int(item["item_id"][1:]))
        assert row["data_source"] == own.get("data_source", "zpd-ray")
        assert row["ability"] == own["group"]
        assert row["prompt"] == [{"role": "user", "content": own["prompt"]}]
        assert row["reward_model"] == {"style": "rule", "ground_truth": own["answer"]}
        told = row["extra_info"]
        assert (told["split"], told["index"], told["item_id"]) == ("train", number, item["item_id"])
        assert told["score"] == item["score"]


def test_parquet_carries_scores_and_the_columns_of_the_source(
    taken: Run, loaded: Callable[..., datasets.Dataset]
) -> None:
    rows = loaded("parquet", scores=True, extra=True)
    selected = [row | {"stage": stage} for stage in (0, 1) for row in ranked(taken, stage)]
    assert rows.column_names[-9:] == [*SCORES, "extra"]
    rates = [pass_rates(taken, stage) for stage in (0, 1)]
    for row, item in zip(rows, selected, strict=True):
        assert {name: row[name] for name in SCORES[:-1]} == {name: item[name] for name in SCORES[:-1]}
        assert json.loads(row["extra"])["level"] == int(row["item_id"][1:]) % 5
        assert row["pass_rate"] == rates[row["stage"]][row["item_id"]]


def test_hf_is_a_dataset_on_disk(taken: Run, exported: Export) -> None:
    directory = exported("hf", stage=1, extra=True)
    rows = datasets.load_from_disk(str(directory))
    assert rows["item_id"][:] == [row["item_id"] for row in ranked(taken, 1)]
    assert rows.column_names[-1] == "extra"
    assert [path.name for path in directory.parent.iterdir() if path.name.startswith(".")] == []


def test_jsonl_has_the_source_columns_as_they_were(taken: Run, exported: Export) -> None:
    rows = lines_of(exported("jsonl", stage=1, extra=True, scores=True) / "train.jsonl")
    for row, item in zip(rows, ranked(taken, 1), strict=True):
        own = source_row(int(row["item_id"][1:]))
        assert row["extra"] == {name: own[name] for name in ("level", "data_source") if name in own}
        assert (row["completion"][0]["content"], row["answer"]) == (own["response"], own["answer"])
        assert (row["p"], row["rank"]) == (item["p"], item["rank"])
    assert set(row) == {
        *("item_id", "prompt", "completion", "answer", "choices", "group", "source_file", "source_row"),
        *(*SCORES, "extra"),
    }
