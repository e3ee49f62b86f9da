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
    config: dict[str, Any] = json.loads((directory / "adapter_config.json").read_text())
    if config.get("peft_type") != "LORA":
        raise ZpdError(f"adapter {directory} is of type {config.get('peft_type')}; expected LORA")
    return config


def changed_modules(directory: Path) -> set[str]:
    """Names of the modules that an adapter has weights for, such as q_proj; whole modules it saves, too.

    Raises ZpdError when its file is no safetensors, or cut short.
    """
    try:
        with safe_open(directory / "adapter_model.safetensors", "numpy") as file:
            keys = list(file.keys())
    except SafetensorError as error:
        raise ZpdError(f"adapter {directory} cannot be read ({error}); expected a whole file") from None
    modules = (key.partition(".lora_")[0].removesuffix(".weight") for key in keys)
    return {module.removesuffix(".base_layer").rpartition(".")[2] for module in modules}
