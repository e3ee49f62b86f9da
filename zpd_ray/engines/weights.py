"""What a model's safetensors files hold, from their headers alone: no weights are loaded, nor torch."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from zpd_ray.errors import ZpdError

INDEX = "model.safetensors.index.json"
LENGTH_BYTES = 8  # of the header's length, at the start of a file
HEAD = "lm_head"
WEIGHTS = ("weight", "qweight", "weight_packed")  # the latter of GPTQ, AWQ and compressed tensors
EMBEDDINGS = ("embed", "wte", "wpe", "word_embeddings")


def check_weights(directory: Path) -> None:
    """Raises ZpdError when a directory holds no safetensors, or a file of them is missing or cut off."""
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        names = sorted(path.name for path in directory.iterdir())
        raise ZpdError(
            f"no weights in {directory}, which holds {', '.join(names)}; expected *.safetensors: save the "
            "model with save_pretrained (other formats are not read, since they can run code)"
        )
    missing = sorted(_indexed(directory) - {file.name for file in files})
    if missing:
        told = f"{', '.join(missing[:3])}{' and more' * (len(missing) > 3)}"
        raise ZpdError(f"{directory} lacks {told}, which its {INDEX} names; fetch the model again")
    for file in files:
        header(file)


def header(file: Path) -> dict[str, Any]:
    """By tensor its dtype, shape and place. Raises ZpdError when the file is no whole safetensors file."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
            if length > size:
                raise ValueError("its header is longer than the file")
            tensors = dict(json.loads(stream.read(length)))
    except ValueError as problem:
        raise ZpdError(f"{file} is no safetensors file ({problem}); fetch the model again") from None
    tensors.pop("__metadata__", None)
    expected = LENGTH_BYTES + length + max((t["data_offsets"][1] for t in tensors.values()), default=0)
    if size != expected:
        raise ZpdError(
            f"{file} is cut off or damaged: got {size:,} bytes, expected {expected:,}; fetch the model again"
        )
    return tensors


def check_targets(leaves: Collection[str], targets: Iterable[str]) -> None:
    """Raises ZpdError for LoRA targets that are none of a model's linear layers, by the last part of their
    name, or that vLLM would not serve."""
    missing = sorted(set(targets) - set(leaves))
    if missing:
        raise ZpdError(
            f"train.lora.targets names {', '.join(missing)}, which the model does not have; its linear "
            f"layers are {', '.join(sorted(set(leaves) - {HEAD}))}; set train.lora.targets to some of these"
        )
    if HEAD in targets:
        raise ZpdError(
            f"train.lora.targets names {HEAD}, whose adapter vLLM drops without a word; leave it out"
        )


def matrices(directory: Path) -> set[str]:
    """Last parts of the names of a model's weight matrices, quantised ones too, without its embeddings."""
    found = {HEAD}  # which may share the embedding's weights
    for file in directory.glob("*.safetensors"):
        for name, tensor in header(file).items():
            *_, leaf, kind = ["", *name.split(".")]
            if kind in WEIGHTS and len(tensor["shape"]) == 2 and not leaf.startswith(EMBEDDINGS):
                found.add(leaf)
    return found


def _indexed(directory: Path) -> set[str]:
    index = directory / INDEX
    if not index.is_file():
        return set()
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError) as problem:
        raise ZpdError(f"cannot read {index}: {problem!r}; fetch the model again") from None
