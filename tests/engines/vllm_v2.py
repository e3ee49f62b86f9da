"""Version 2 of vLLM's runner on the CPU: Triton's interpreter stands in for the GPU that its kernels want.

A program of its own: ``python -m tests.engines.vllm_v2 MODEL_DIR GRADER ...`` scores four items for each
grader and prints JSON: NLLs, first choices and whether the response alone was read.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

VERSION_2 = {
    "CUDA_VISIBLE_DEVICES": "",  # Triton then does not insist on a driver
    "TRITON_INTERPRET": "1",
    "VLLM_USE_V2_MODEL_RUNNER": "1",
    "OMP_NUM_THREADS": "1",
}


def main(path: str, graders: list[str]) -> None:
    os.environ.update(VERSION_2)
    import vllm.platforms

    assert vllm.platforms.current_platform.is_cpu()  # resolved before the next line hides what it looks at
    # A CPU build of vLLM switches Triton off; here it is to be tried all the same.
    vllm.platforms.vllm_version_matches_substr = lambda substring: False
    print(json.dumps({grader: told(path, grader) for grader in graders}))


def told(path: str, grader: str) -> dict[str, Any]:
    """What an engine for this grader says of four items."""
    from tests.engines.conftest import items_of
    from zpd_ray.config import Config
    from zpd_ray.engines import ModelRef
    from zpd_ray.engines.vllm.engine import VllmEngine

    values = {
        "output": "unused",
        "pool": {"path": "unused"},
        "model": {"path": path},
        "engine": {"name": "vllm"},
        "measure": {"grader": grader},
        "select": {"budget": {"items": 1}},
        "train": {"method": "none"},
    }
    engine = VllmEngine(Config.model_validate(values), ModelRef(path))
    scores = engine.score(items_of()[:4])
    return {
        "nll": scores.nll.tolist(),
        "n_greedy": scores.n_greedy.tolist(),
        "error": scores.error,
        "response_only": engine.response_only,
        "reads": engine.settings()["reads"],
    }


if __name__ == "__main__":
    main(str(Path(sys.argv[1])), sys.argv[2:])
