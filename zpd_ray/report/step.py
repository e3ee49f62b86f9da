"""What a single step came to: the values of the file that closes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import EVALUATION, POOL, StageFiles, Step
from zpd_ray.rundir.records import load_closing
from zpd_ray.terminal import results

INGEST = "ingest"
GROWING = ("sources", "prompt_keys")  # in pool.json: an entry per file, and per prompt


@dataclass(frozen=True)
class Taken:
    """step: its command. stage: None for ingest. file: that closes it, path or URI. result: what it holds."""

    step: str
    stage: int | None
    file: str
    result: dict[str, Any]


def taken(run: Run, step: Step, stage: int) -> Taken:
    """A finished step of a stage."""
    file = f"{run.store.root}/{StageFiles(stage).closing(step)}"
    return Taken(step.name, stage, file, load_closing(run.store, stage, step))


def ingested(run: Run) -> Taken:
    """What became of the rows, of the pool and of the evaluation set (None where there is none)."""
    result: dict[str, Any] = {"pool": _counts(run, POOL), "evaluation": None}
    if run.config.evaluation is not None:
        result["evaluation"] = _counts(run, EVALUATION)
    return Taken(INGEST, None, f"{run.store.root}/{POOL}.json", result)


def _counts(run: Run, items: str) -> dict[str, Any]:
    summary: dict[str, Any] = run.store.read_json(f"{items}.json")
    return {key: value for key, value in summary.items() if key not in GROWING}


def draw(taken: Taken) -> None:
    """Where it stands, in a line."""
    told = taken.step if taken.stage is None else f"stage {taken.stage}: {taken.step}"
    results.print(f"{told}: {taken.file}", highlight=False, soft_wrap=True)
