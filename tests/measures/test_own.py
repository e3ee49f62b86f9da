"""Right responses of the model's own that are kept to train on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests import tiny
from tests.engines.conftest import make_items as make_items
from tests.pipeline.conftest import simulated_values
from zpd_ray.config import Config
from zpd_ray.config_file import validate
from zpd_ray.engines.model_files import load_tokenizer
from zpd_ray.engines.tokens import encode
from zpd_ray.graders import Verdict
from zpd_ray.measures.own import own_answers

RIGHT, HALF = Verdict(1.0, True), Verdict(0.5, True)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    model = tiny.build_model(tmp_path / "model", layers=1)
    values = simulated_values(tmp_path, 1, model={"path": str(model)}, engine={"name": "transformers"})
    return validate(values)


def test_one_of_the_right_ones_is_drawn_by_seed_stage_and_item(
    config: Config, make_items: Callable[..., pa.Table]
) -> None:
    items = make_items()
    texts = [[f"{i} is one", f"{i} is two", "wrong", "  "] for i in range(items.num_rows)]
    verdicts = [[RIGHT, RIGHT, HALF, RIGHT] for _ in texts]
    own = own_answers(config, items, texts, verdicts, 0)
    assert {text.split()[-1] for text in own.text if text} == {"one", "two"}
    assert own == own_answers(config, items, texts, verdicts, 0)
    assert own != own_answers(config, items, texts, verdicts, 1)
    some = np.arange(0, items.num_rows, 2)
    alone = own_answers(config, items.take(some), [texts[i] for i in some], [verdicts[i] for i in some], 0)
    assert alone.text == [own.text[i] for i in some]
    trained = encode(load_tokenizer(config.model.path), items["messages"], own.text, config.model.separator)
    assert own.tokens == [len(ids) for ids in trained.response_ids]


def test_what_would_end_the_text_too_early_is_not_kept(
    config: Config, make_items: Callable[..., pa.Table]
) -> None:
    items = make_items().slice(0, 2)
    end = load_tokenizer(config.model.path).eos_token
    own = own_answers(config, items, [[f"4{end} and more"], ["4"]], [[RIGHT]] * 2, 0)
    assert own.text == [None, "4"]
    assert own.tokens[0] is None
