"""What a LoRA adapter on disk has to be before an engine loads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from zpd_ray.errors import ZpdError


def check_adapter(directory: Path) -> dict[str, Any]:
    """The adapter's config; ZpdError when the directory holds no LoRA adapter in safetensors."""
    names = sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []
    missing = {"adapter_config.json", "adapter_model.safetensors"} - set(names)
    if missing:
        raise ZpdError(
            f"no LoRA adapter in {directory}: {' and '.join(sorted(missing))} missing, found "
            f"{', '.join(names) or 'nothing'}; expected what peft's save_pretrained writes"
        )
    try:
        config: dict[str, Any] = json.loads((directory / "adapter_config.json").read_bytes())
        kind = config.get("peft_type")
    except (OSError, ValueError, AttributeError) as error:  # no JSON, or JSON that is no object
        raise ZpdError(
            f"adapter_config.json in {directory} cannot be read ({error}); expected what peft's "
            "save_pretrained writes"
        ) from None
    if kind != "LORA":
        raise ZpdError(f"adapter {directory} is of type {kind}; expected LORA")
    return config


def shapes_of(directory: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor in an adapter's file, by name; reads its header alone.

    Raises ZpdError when the file is no safetensors, or cut short.
    """
    try:
        with safe_open(directory / "adapter_model.safetensors", "numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ZpdError(f"adapter {directory} cannot be read ({error}); expected a whole file") from None


def changed_modules(directory: Path) -> set[str]:
    """Names of the modules that an adapter has weights for, such as q_proj; whole modules it saves, too.

    Raises ZpdError when its file is no safetensors, or cut short.
    """
    modules = (key.partition(".lora_")[0].removesuffix(".weight") for key in shapes_of(directory))
    return {module.removesuffix(".base_layer").rpartition(".")[2] for module in modules}
