"""Tiny models, configs and items that the engine tests share."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from tests import tiny
from zpd_ray import schema
from zpd_ray.config import Config
from zpd_ray.engines import ModelRef
from zpd_ray.engines.transformers import TransformersEngine

GSM8K = Path(__file__).resolve().parents[3] / "shared/data/gsm8k/train.jsonl.gz"

PAIRS = (
    ("How many clips did Natalia sell?", "48 clips in April."),
    ("What does the fox do?", "The quick brown fox jumps over the lazy dog."),
    ("", "An empty question has the separator for a prompt."),
    ("naïve café, 数学, 🙂?", "Ünïcödé is bytes: 数 🙂."),
    ("Weng earns $12 an hour for babysitting. How much is that in 50 minutes?", "10"),
    ("Say it twice.", "twice twice " * 20),
)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama without a chat template."""
    return tiny.build_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def make_config() -> Callable[..., Config]:
    """Config of a model directory; keyword arguments are sections with the values that differ."""

    def make(path: Path | str = "unused", **sections: Any) -> Config:
        base: dict[str, Any] = {
            "output": "unused",
            "pool": {"path": "unused"},
            "model": {"path": str(path)},
            "select": {"budget": {"items": 1}},
            "train": {"method": "none"},
        }
        model = sections.pop("model", {})
        return Config.model_validate({**base, **sections, "model": {**base["model"], **model}})

    return make


@pytest.fixture(scope="session")
def make_engine(make_config: Callable[..., Config]) -> Callable[..., TransformersEngine]:
    """A loaded engine of a model directory."""

    def make(path: Path, adapter: Path | None = None, **sections: Any) -> TransformersEngine:
        ref = ModelRef(str(path), str(adapter) if adapter else None)
        return TransformersEngine(make_config(path, **sections), ref)

    return make


def items_of(pairs: Any = PAIRS) -> pa.Table:
    """A table of items from (question, response) pairs."""
    rows = [
        {
            "item_id": f"item-{i}",
            "messages": [{"role": "user", "content": question}],
            "response": response,
            "answer": response,
            "response_tokens": len(response.split()) + 1,
        }
        for i, (question, response) in enumerate(pairs)
    ]
    return pa.Table.from_pylist(rows, schema=schema.ITEM)


@pytest.fixture(scope="session")
def make_items() -> Callable[..., pa.Table]:
    """``items_of``."""
    return items_of


@pytest.fixture(scope="session")
def gsm8k() -> list[tuple[str, str]]:
    """(question, answer) of 1000 GSM8K problems."""
    if not GSM8K.exists():
        pytest.skip(f"{GSM8K} is not on this machine")
    with gzip.open(GSM8K, "rt") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(1000), strict=False)]
    return [(row["question"], row["answer"]) for row in rows]
