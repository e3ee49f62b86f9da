"""What a model's safetensors files hold, from their headers alone: no weights are loaded, nor torch."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from zpd_ray.errors import ZpdError, first_line
from zpd_ray.uris import open_filesystem, patiently, without_options

INDEX = "model.safetensors.index.json"
LENGTH_BYTES = 8  # of the header's length, at the start of a file
HEAD = "lm_head"
WEIGHTS = ("weight", "qweight", "weight_packed")  # the latter of GPTQ, AWQ and compressed tensors
EMBEDDINGS = ("embed", "wte", "wpe", "word_embeddings")


def check_weights(directory: str) -> None:
    """Raises ZpdError when a directory holds no safetensors, or a file of them is missing or cut off.

    directory: path or URI.
    """
    fs, found = listed(directory)
    files = _weights(found)
    if not files:
        names = sorted(info.base_name for info in found)
        raise ZpdError(
            f"no weights in {without_options(directory)}, which holds {', '.join(names)}; expected "
            "*.safetensors: save the model with save_pretrained (other formats are not read, since they can "
            "run code)"
        )
    missing = sorted(_indexed(fs, found) - {info.base_name for info in files})
    if missing:
        told = f"{', '.join(missing[:3])}{' and more' * (len(missing) > 3)}"
        raise ZpdError(
            f"{without_options(directory)} lacks {told}, which its {INDEX} names; fetch the model again"
        )
    for file in files:
        _header(fs, file)


def weight_bytes(directory: str) -> int:
    """Bytes of the safetensors files in a directory, path or URI; 0 for a hub id."""
    if "://" not in directory and not Path(directory).is_dir():
        return 0
    return sum(info.size for info in _weights(listed(directory)[1]))


def listed(directory: str) -> tuple[pafs.FileSystem, list[pafs.FileInfo]]:
    """What lies in a model's directory, path or URI. Raises ZpdError when it cannot be read."""
    try:
        if "://" in directory:
            fs, base = open_filesystem(directory)
        else:
            fs, base = pafs.LocalFileSystem(), os.path.abspath(directory)
        return fs, patiently(fs.get_file_info)(pafs.FileSelector(base))
    except (OSError, ValueError) as problem:
        raise ZpdError(
            f"cannot read the model at {without_options(directory)}: {first_line(problem)}; expected a "
            "directory, or the URI of one that pyarrow.fs opens (s3, gs, hdfs, abfs), with credentials in "
            "the environment of every node"
        ) from None


def _weights(found: list[pafs.FileInfo]) -> list[pafs.FileInfo]:
    return sorted((info for info in found if info.base_name.endswith(".safetensors")), key=lambda i: i.path)


def _header(fs: pafs.FileSystem, file: pafs.FileInfo) -> dict[str, Any]:
    """By tensor its dtype, shape and place. Raises ZpdError when the file is no whole safetensors file."""
    try:
        with fs.open_input_file(file.path) as stream:
            length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
            if length > file.size:
                raise ValueError("its header is longer than the file")
            tensors = dict(json.loads(stream.read(length)))
    except ValueError as problem:
        raise ZpdError(f"{file.path} is no safetensors file ({problem}); fetch the model again") from None
    tensors.pop("__metadata__", None)
    expected = LENGTH_BYTES + length + max((t["data_offsets"][1] for t in tensors.values()), default=0)
    if file.size != expected:
        raise ZpdError(
            f"{file.path} is cut off or damaged: got {file.size:,} bytes, expected {expected:,}; fetch the "
            "model again"
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


def matrices(directory: str) -> set[str]:
    """Last parts of the names of a model's weight matrices, quantised ones too, without its embeddings."""
    fs, files = listed(directory)
    found = {HEAD}  # which may share the embedding's weights
    for file in _weights(files):
        for name, tensor in _header(fs, file).items():
            *_, leaf, kind = ["", *name.split(".")]
            if kind in WEIGHTS and len(tensor["shape"]) == 2 and not leaf.startswith(EMBEDDINGS):
                found.add(leaf)
    return found


def _indexed(fs: pafs.FileSystem, found: list[pafs.FileInfo]) -> set[str]:
    index = next((info for info in found if info.base_name == INDEX), None)
    if index is None:
        return set()
    try:
        with fs.open_input_stream(index.path) as stream:
            return set(json.loads(stream.read())["weight_map"].values())
    except (ValueError, KeyError) as problem:
        raise ZpdError(f"cannot read {index.path}: {problem!r}; fetch the model again") from None
