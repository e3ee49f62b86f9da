"""What the weights of a model take of main memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import tiny
from zpd_ray.config import Config
from zpd_ray.engines.weights import weight_bytes
from zpd_ray.pipeline.cluster.resources import needed_memory


@pytest.mark.parametrize(("method", "copies"), [("lora", 1), ("full", 4)])
def test_training_on_cpus_holds_float32_whatever_the_files_have(
    tmp_path: Path, method: str, copies: int
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny.build_model(tmp_path / "made"))
    needed = []
    for dtype in (torch.float32, torch.bfloat16):
        saved = tmp_path / str(dtype)
        model.to(dtype).save_pretrained(saved)
        sections = {
            "output": "unused",
            "pool": {"path": "unused"},
            "model": {"path": str(saved)},
            "select": {"budget": {"items": 1}},
            "train": {"method": method, "workers": 2},
            "cluster": {"actors": 1, "gpus_per_actor": 0, "gpus_per_train_worker": 0},
        }
        needed.append(needed_memory(Config.model_validate(sections)))
    whole = weight_bytes(str(tmp_path / str(torch.float32)))
    assert needed == pytest.approx([2 * copies * whole] * 2, rel=0.02)
