"""What the files of a model say, read as transformers reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests import tiny
from tests.test_imports import modules_after
from zpd_ray.config import ModelConfig
from zpd_ray.engines import model_files
from zpd_ray.errors import ZpdError

TEXTS = ["what is 7 + 5?", "  two  spaces, a\nline and ünïcödé", "<|end|> spelled out", ""]


def test_directory_without_tokenizer_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ZpdError, match=r"no tokenizer in .* holds model\.safetensors; .*save_pretrained"):
        model_files.load_tokenizer(str(tmp_path))
    with pytest.raises(ZpdError, match="does not exist"):
        model_files.load_tokenizer(str(tmp_path / "nowhere"))
    (tmp_path / "tokenizer.json").write_text("{not json")
    with pytest.raises(ZpdError, match="cannot load a tokenizer"):
        model_files.load_tokenizer(str(tmp_path))


def test_stops_of_a_generation_config(tmp_path: Path) -> None:
    config = tmp_path / "generation_config.json"
    assert model_files.generation_stops(str(tmp_path)) == set()
    for told, stops in (("{}", set()), ('{"eos_token_id": 7}', {7}), ('{"eos_token_id": [7, 9]}', {7, 9})):
        config.write_text(told)
        assert model_files.generation_stops(str(tmp_path)) == stops
    config.write_text('{"eos_token_id": ')
    with pytest.raises(ZpdError, match=r"cannot read generation_config.json in"):
        model_files.generation_stops(str(tmp_path))


def test_max_length_is_the_models_unless_given(model_dir: Path, tmp_path: Path) -> None:
    tokenizer = model_files.load_tokenizer(str(model_dir))
    assert model_files.max_length(ModelConfig(path=str(model_dir)), tokenizer) == 512
    assert model_files.max_length(ModelConfig(path=str(model_dir), max_length=100), tokenizer) == 100
    with pytest.raises(ZpdError, match=r"expected config\.json"):
        model_files.max_length(ModelConfig(path=str(tmp_path)), tokenizer)
    with pytest.raises(ZpdError, match="more than the 512 positions"):
        model_files.max_length(ModelConfig(path=str(model_dir), max_length=1000), tokenizer)


def reworded(directory: Path, name: str, **values: str) -> None:
    """Change values of a JSON file of a model."""
    file = directory / name
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize(
    ("of_tokenizer", "of_model", "plain"),
    [
        ({}, {}, True),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, {}, True),  # as versions before 5 name it
        ({"tokenizer_class": "LlamaTokenizer"}, {}, False),
        ({}, {"model_type": "qwen2"}, False),  # for which AutoTokenizer has a class of its own
        ({"tokenizer_class": "GPT2Tokenizer"}, {}, False),
    ],
)
def test_the_tokenizer_is_that_of_transformers_whichever_way_it_is_loaded(
    tmp_path: Path, chat: bool, of_tokenizer: dict[str, str], of_model: dict[str, str], plain: bool
) -> None:
    directory = tiny.build_model(tmp_path, chat=chat)
    reworded(directory, "tokenizer_config.json", **of_tokenizer)
    reworded(directory, "config.json", **of_model)
    assert model_files._is_plain(directory) == plain
    ours = model_files.load_tokenizer(str(directory))
    theirs = AutoTokenizer.from_pretrained(directory, mistral_format=False)
    assert type(ours) is type(theirs)
    assert ours(TEXTS).input_ids == theirs(TEXTS).input_ids
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert (ours.chat_template, ours.model_max_length) == (theirs.chat_template, theirs.model_max_length)
    assert ours.added_tokens_decoder == theirs.added_tokens_decoder


def test_ingest_of_a_model_like_llama_3_waits_for_no_torch(model_dir: Path) -> None:
    """Every process that reads a pool would import it, and the driver: 5 s each."""
    code = f"""
from zpd_ray.config import ModelConfig
from zpd_ray.engines import ENGINES, model_files
assert ENGINES.load("transformers").reads_text and ENGINES.load("vllm").has_weights
tokenizer = model_files.load_tokenizer({str(model_dir)!r})
assert model_files.max_length(ModelConfig(path={str(model_dir)!r}), tokenizer) == 512
"""
    assert not {"torch", "vllm"} & modules_after(code)
