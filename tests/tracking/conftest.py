"""A finished run of two stages that has trained, as far as its files tell, and what is to tell of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from zpd_ray.config_file import validate
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.layout import TRAIN, StageFiles
from zpd_ray.schema import STEP
from zpd_ray.tracking.figures import closed, figures

LOSSES = ([2.5, 2.0, 1.5], [1.25, 1.0])  # by stage
TOKENS = 40  # of each step

Figures = dict[tuple[str, int], float]  # by name and step
MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(taken: Run, tmp_path: Path) -> MakeRun:
    """``make_run(tensorboard="DIR")``: keyword arguments are the section ``track``."""
    shutil.copytree(taken.store.root, tmp_path / "mine #1")
    store = Store(str(tmp_path / "mine #1"))
    for stage, losses in enumerate(LOSSES):
        files, n = StageFiles(stage), len(losses)
        steps = {"step": range(n), "loss": losses, "learning_rate": [1e-4 / 2**stage] * n}
        store.write_table(files.steps, pa.table(steps | {"tokens": [TOKENS] * n}).cast(STEP))
        told = {"items": 60, "rows": 60, "steps": n, "tokens": n * TOKENS, "train_nll": sum(losses) / n}
        store.write_json(files.closing(TRAIN), told | {"why": "words are no figure", "fine": True})

    def make(**track: Any) -> Run:
        values = taken.config.model_dump(exclude_none=True) | {"output": store.root, "track": track}
        return Run(validate(values | {"train": {"method": "lora"}}), store)

    return make


def expected(run: Run) -> Figures:
    """All that there is to tell."""
    return {
        (key, point.step): value
        for name in closed(run)
        for point in figures(run, name)
        for key, value in point.values.items()
    }


def reopen(run: Run, stage: int, step: str) -> Callable[[], None]:
    """Take a closing file away; call what comes back to put it there again."""
    file = Path(run.store.path(f"{StageFiles(stage).directory}/{step}"))
    aside = file.with_name(f".{step}")
    file.rename(aside)
    return lambda: aside.rename(file) and None
