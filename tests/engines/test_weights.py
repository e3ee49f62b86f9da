"""What can be told of a model's weights without loading them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import tiny
from zpd_ray.config import LoraConfig
from zpd_ray.engines.weights import INDEX, check_targets, check_weights, matrices
from zpd_ray.errors import ZpdError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_model(tmp_path_factory.mktemp("llama"), layers=1)


def test_the_linear_layers_are_those_of_the_loaded_model(model: Path) -> None:
    from torch import nn
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model)
    linear = {name.rpartition(".")[2] for name, part in loaded.named_modules() if isinstance(part, nn.Linear)}
    assert matrices(str(model)) == linear
    check_targets(linear, LoraConfig().targets)


def test_a_target_that_is_not_there_is_told_with_those_that_are(model: Path) -> None:
    with pytest.raises(ZpdError, match=r"targets names c_attn, which .* its linear layers are down_proj"):
        check_targets(matrices(str(model)), ["c_attn", "q_proj"])
    with pytest.raises(ZpdError, match="lm_head, whose adapter vLLM drops"):
        check_targets(matrices(str(model)), ["lm_head"])


@pytest.mark.parametrize("left", [0.0, 0.001, 0.5, 0.999])
def test_a_file_that_is_cut_off_is_told_by_its_size(model: Path, tmp_path: Path, left: float) -> None:
    whole = (model / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole)
    check_weights(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(whole[: int(left * len(whole))])
    with pytest.raises(ZpdError, match="fetch the model again"):
        check_weights(str(tmp_path))


def test_a_shard_that_is_missing_is_named(model: Path, tmp_path: Path) -> None:
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": names}))
    with pytest.raises(ZpdError, match=r"lacks model-00002-of-00002.safetensors, which its"):
        check_weights(str(tmp_path))
