"""What another trainer has left, held against the base model by names and shapes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

from tests import tiny
from tests.engines.lora import make_adapter
from zpd_ray.errors import ZpdError
from zpd_ray.training.fits import check_adapter_fits, check_model_fits

WEIGHTS = "adapter_model.safetensors"


@pytest.mark.parametrize(
    "lora",
    [
        {"r": 4, "target_modules": ["q_proj"]},
        {"r": 64, "target_modules": "all-linear", "use_rslora": True, "use_dora": True},
        {"r": 2, "target_modules": r".*layers\.0\..*_proj", "rank_pattern": {"up_proj": 7}},
        {"r": 2, "target_modules": ["v_proj"], "modules_to_save": ["lm_head"], "bias": "all"},
        {"r": 2, "target_modules": ["v_proj", "embed_tokens"], "init_lora_weights": "pissa"},
    ],
    ids=["plain", "dora", "pattern", "whole modules", "embeddings"],
)
def test_whatever_peft_saves_for_this_base_fits(
    model_dir: Path, tmp_path: Path, lora: dict[str, object]
) -> None:
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    get_peft_model(base, LoraConfig(**lora)).save_pretrained(tmp_path)
    check_adapter_fits(str(model_dir), tmp_path)


def test_adapters_of_other_bases_are_told_by_their_first_tensor(model_dir: Path, tmp_path: Path) -> None:
    wider = tiny.build_model(tmp_path / "wider", layers=1, heads=3)
    adapter = make_adapter(wider, tmp_path / "a", seed=1)
    with pytest.raises(ZpdError, match=r"layers\.0\.mlp\.down_proj\.lora_A\.weight is 4 x 288, .* 4 x 192;"):
        check_adapter_fits(str(model_dir), adapter)
    deeper = tiny.build_model(tmp_path / "deeper", layers=3)
    adapter = make_adapter(deeper, tmp_path / "b", seed=1)
    with pytest.raises(ZpdError, match=r"layers\.1\..* has no place in the base model; expected"):
        check_adapter_fits(str(model_dir), adapter)
    with pytest.raises(ZpdError, match=r"layers\.1\..* is missing"):
        check_adapter_fits(str(deeper), make_adapter(model_dir, tmp_path / "c", seed=1))


def test_an_adapter_for_modules_that_the_base_lacks(model_dir: Path, tmp_path: Path) -> None:
    adapter = make_adapter(model_dir, tmp_path, seed=1)
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"target_modules": ["c_attn"]}))
    with pytest.raises(ZpdError, match=r"does not fit: .*c_attn.* not found in the base model"):
        check_adapter_fits(str(model_dir), adapter)


def test_an_adapter_that_lacks_a_tensor_or_is_cut(model_dir: Path, tmp_path: Path) -> None:
    adapter = make_adapter(model_dir, tmp_path, seed=1)
    weights = load_file(adapter / WEIGHTS)
    weights.pop(next(name for name in weights if "v_proj.lora_B" in name))
    save_file(weights, adapter / WEIGHTS)
    with pytest.raises(ZpdError, match=r"v_proj\.lora_B\.weight is missing"):
        check_adapter_fits(str(model_dir), adapter)
    (adapter / WEIGHTS).write_bytes((adapter / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(ZpdError, match="cannot be read"):
        check_adapter_fits(str(model_dir), adapter)


def copy_of(model_dir: Path, directory: Path) -> Path:
    return Path(shutil.copytree(model_dir, directory))


def test_a_whole_model_of_the_same_sizes_fits(model_dir: Path, tmp_path: Path) -> None:
    check_model_fits(str(model_dir), model_dir)
    tuned = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16)
    copy = copy_of(model_dir, tmp_path / "copy")
    (copy / "model.safetensors").unlink()
    tuned.save_pretrained(copy, max_shard_size="50KB")
    assert len(list(copy.glob("*.safetensors"))) > 1
    check_model_fits(str(model_dir), copy)
    next(copy.glob("*.safetensors")).unlink()
    with pytest.raises(ZpdError, match="cannot be read"):
        check_model_fits(str(model_dir), copy)


def test_whole_models_of_other_sizes_or_kinds_do_not(model_dir: Path, tmp_path: Path) -> None:
    deeper = tiny.build_model(tmp_path / "deeper", layers=2)
    with pytest.raises(ZpdError, match=r"layers\.1\..* has no place in the base model"):
        check_model_fits(str(model_dir), deeper)
    vocabulary = tiny.build_model(tmp_path / "vocabulary", layers=1, vocab=600)
    with pytest.raises(ZpdError, match=r"lm_head\.weight is 600 x 64, the base model takes 512 x 64"):
        check_model_fits(str(model_dir), vocabulary)
    llama = AutoModelForCausalLM.from_pretrained(model_dir).config.to_dict()
    copy = copy_of(model_dir, tmp_path / "copy")
    MistralForCausalLM(MistralConfig(**llama | {"model_type": "mistral"})).save_pretrained(copy)
    with pytest.raises(ZpdError, match="it is a MistralForCausalLM, the base model a LlamaForCausalLM"):
        check_model_fits(str(model_dir), copy)


def test_a_whole_model_whose_files_are_not_what_its_config_says(model_dir: Path, tmp_path: Path) -> None:
    copy = copy_of(model_dir, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    norm = weights.pop("model.norm.weight")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ZpdError, match=r"model\.norm\.weight is missing in its files"):
        check_model_fits(str(model_dir), copy)
    other = weights | {"model.norm.weight": norm[:3].clone()}
    save_file(other, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ZpdError, match=r"model\.norm\.weight has another shape"):
        check_model_fits(str(model_dir), copy)
    (copy / "model.safetensors").write_bytes(b"")
    with pytest.raises(ZpdError, match="cannot be read"):
        check_model_fits(str(model_dir), copy)


def test_a_tokenizer_that_makes_other_ids_is_refused(model_dir: Path, tmp_path: Path) -> None:
    copy = copy_of(model_dir, tmp_path / "copy")
    for tokenizer, told in (
        (tiny.build_tokenizer(chat=True), "its chat template, end of a response:"),
        (tiny.build_tokenizer(bos=True), "its begin of text:"),
        (tiny.build_tokenizer(texts=["other texts"], vocab=300), "its vocabulary:"),
    ):
        tokenizer.save_pretrained(copy)
        with pytest.raises(ZpdError, match=f"differs from that of .* in {told} .* copy the base's"):
            check_model_fits(str(model_dir), copy)
        (copy / "chat_template.jinja").unlink(missing_ok=True)
