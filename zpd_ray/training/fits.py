"""Whether what another trainer has left fits the base model: names and shapes of tensors, no weights read.

Models are built on torch's "meta" device, where a tensor has a shape and no memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from zpd_ray.engines.adapters import shapes_of
from zpd_ray.engines.model_files import load_tokenizer
from zpd_ray.engines.remote import at_hand
from zpd_ray.engines.tokens import leading_ids, stop_ids
from zpd_ray.errors import ZpdError, first_line

Shapes = dict[str, tuple[int, ...]]
PEFT = "base_model.model."  # before the names of the base's tensors in an adapter's file


def check_adapter_fits(base: str, adapter: Path) -> None:
    """Compare the tensors of a LoRA adapter with those that peft makes for its config on this base.

    base: directory or hub id. Raises ZpdError with the first tensor that is another one, or is not there.
    """
    expected = f"expected a LoRA adapter that was trained on {base}, the run's base model"
    try:
        with _quiet():
            config = PeftConfig.from_pretrained(str(adapter))
            config.init_lora_weights = False  # some initialisations compute with the base's weights
            net = get_peft_model(_without_weights(base), config)
            lora = _shapes(get_peft_model_state_dict(net, save_embedding_layers=False))
    except Exception as error:  # unknown modules, unknown types, no config: peft raises its own of each
        raise ZpdError(f"adapter {adapter} does not fit: {first_line(error)}; {expected}") from None
    got = shapes_of(adapter)
    saved_too = {name: shape for name, shape in _shapes(net.state_dict()).items() if name in got}
    if told := _difference(got, saved_too | lora):
        raise ZpdError(f"adapter {adapter} does not fit: {told}; {expected}")


def check_model_fits(base: str, result: Path) -> None:
    """Compare a whole model with the base: architecture, sizes, tensors in its files, and tokenizer.

    base: directory or hub id. Raises ZpdError with the first thing that is another one, or is not there.
    """
    expected = f"expected all weights of a model like {base}, the run's base model"
    try:
        with _quiet():
            told = _other_model(_without_weights(str(result)), _without_weights(base)) or _missing(result)
    except Exception as error:  # the config classes, transformers and safetensors each raise their own
        raise ZpdError(f"model {result} cannot be read ({first_line(error)}); {expected}") from None
    if told:
        raise ZpdError(f"model {result} does not fit: {told}; {expected}")
    _check_tokenizer(base, str(result))


def _check_tokenizer(base: str, result: str) -> None:
    """Stages are compared with each other, so all of them must see the same ids."""
    ours, theirs = load_tokenizer(base), load_tokenizer(result)
    same = {
        "vocabulary": ours.get_vocab() == theirs.get_vocab(),
        "chat template": ours.chat_template == theirs.chat_template,
        "begin of text": leading_ids(ours) == leading_ids(theirs),
        "end of a response": stop_ids(ours) == stop_ids(theirs),
    }
    if other := [what for what, equal in same.items() if not equal]:
        raise ZpdError(
            f"the tokenizer in {result} differs from that of {base} in its {', '.join(other)}: the next "
            "stage would be measured on other tokens than this one; copy the base's tokenizer files there"
        )


def _other_model(got: nn.Module, expected: nn.Module) -> str:
    if type(got) is not type(expected):
        return f"it is a {type(got).__name__}, the base model a {type(expected).__name__}"
    return _difference(_shapes(got.state_dict()), _shapes(expected.state_dict()))


def _difference(got: Shapes, expected: Shapes) -> str:
    """The first tensor that is not as expected, in words; "" where all are."""
    for name in sorted(got.keys() | expected.keys()):
        told = name.removeprefix(PEFT)
        if name not in got:
            return f"{told} is missing"
        if name not in expected:
            return f"{told} has no place in the base model"
        if got[name] != expected[name]:
            return f"{told} is {_by(got[name])}, the base model takes {_by(expected[name])}"
    return ""


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _missing(result: Path) -> str:
    """The first tensor that its files lack or have in another shape, in words; "" where they are whole."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        result,
        device_map="meta",
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # told by us
        output_loading_info=True,
    )
    found = loaded[1]
    if found["missing_keys"]:
        return f"{min(found['missing_keys'])} is missing in its files"
    if found["mismatched_keys"]:
        return f"{min(found['mismatched_keys'])[0]} has another shape than its config.json says"
    return ""


def _without_weights(model: str) -> nn.Module:
    config = AutoConfig.from_pretrained(at_hand(model), trust_remote_code=False)
    with torch.device("meta"):
        built: nn.Module = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return built


def _shapes(tensors: dict[str, Any]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the reports that transformers and peft print beside what they raise."""
    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()
