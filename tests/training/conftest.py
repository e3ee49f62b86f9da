"""A tiny model that the training tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import tiny
from zpd_ray.config import Config


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_model(tmp_path_factory.mktemp("llama"), layers=1)


@pytest.fixture(scope="session")
def two_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_model(tmp_path_factory.mktemp("llama"), layers=2, sharpness=1.0)


@pytest.fixture(scope="session")
def tied_dir(two_blocks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one matrix for the embedding and the head."""
    directory = tmp_path_factory.mktemp("tied")
    config = AutoModelForCausalLM.from_pretrained(two_blocks).config
    config.tie_word_embeddings = True
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    tiny.build_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def make_config(model_dir: Path) -> Callable[..., Config]:
    """Config of the tiny model, or another; keyword arguments are the train section, and the seed."""

    def make(seed: int = 0, path: Path = model_dir, **train: Any) -> Config:
        return Config.model_validate(
            {
                "output": "unused",
                "seed": seed,
                "pool": {"path": "unused"},
                "model": {"path": str(path)},
                "select": {"budget": {"items": 1}},
                "train": train,
            }
        )

    return make
