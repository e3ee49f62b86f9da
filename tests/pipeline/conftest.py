"""Runs small enough to make many of."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tomli_w

from tests.pipeline.processes import Simulated
from zpd_ray.config import Config
from zpd_ray.config_file import validate
from zpd_ray.pipeline.commands import perform
from zpd_ray.rundir.begin import recorded_run
from zpd_ray.rundir.selected import selected_tables
from zpd_ray.rundir.store import Store


def write_jsonl(path: Path, rows: list[dict[str, Any] | str]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def questions(n: int, start: int = 0) -> list[dict[str, Any] | str]:
    return [
        {
            "prompt": f"question {i}",
            "response": " ".join(["word"] * (1 + i % 7)) + f" {i}",
            "answer": str(i),
            "group": f"g{i % 3}",
        }
        for i in range(start, start + n)
    ]


def simulated_values(directory: Path, n: int = 1500, **sections: Any) -> dict[str, Any]:
    """Plain config values of a run over ``n`` items with the simulated engine."""
    pool = directory / "pool.jsonl"
    if not pool.exists():
        write_jsonl(pool, questions(n))
    values: dict[str, Any] = {
        "output": str(directory / "out"),
        "stages": 2,
        "report": False,  # which costs seconds a stage
        "pool": {"path": str(pool), "items_per_part": 400},
        "model": {"path": "none"},
        "engine": {"name": "simulated"},
        "measure": {"grader": "exact", "rollouts": 4},
        "select": {"budget": {"fraction": 0.1}},
        "train": {"method": "none"},
    }
    for name, section in sections.items():
        values[name] = values.get(name, {}) | section if isinstance(section, dict) else section
    return values


def simulated_file(directory: Path, n: int = 1500, **sections: Any) -> Simulated:
    """The same as a file, for a process."""
    file = directory / "run.toml"
    file.write_text(tomli_w.dumps(simulated_values(directory, n, **sections)))
    return Simulated(file)


Simulate = Callable[..., tuple[Config, Store]]


def perform_in(directory: Path, n: int = 1500, output: str = "out", **sections: Any) -> tuple[Config, Store]:
    """All stages of a simulated run."""
    config = validate(simulated_values(directory, n, output=str(directory / output), **sections))
    perform("run", config)
    return config, Store(config.output)


@pytest.fixture
def simulate(local_ray: None, tmp_path: Path) -> Simulate:
    """``simulate(n=..., output="other", select={...})`` runs all stages and returns config and store."""
    return partial(perform_in, tmp_path)


@pytest.fixture(scope="session")
def plain_run(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Store]:
    """A simulated run to look at."""
    return perform_in(tmp_path_factory.mktemp("plain"), select={"replay": 0.1})


@pytest.fixture(scope="session")
def replay_run(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Store]:
    """A longer one."""
    return perform_in(tmp_path_factory.mktemp("replay"), n=3000, stages=3, select={"replay": 0.2})


def table_of(store: Store, directory: str) -> pa.Table:
    """All files of a directory as one table."""
    return pa.concat_tables([store.read_table(f"{directory}/{name}") for name in store.names(directory)])


def selected_of(store: Store, stage: int = 0, method: str | None = None) -> pa.Table:
    """What a run has selected at a stage, with its texts, in order of rank."""
    return pa.concat_tables(selected_tables(recorded_run(store.uri), stage, method))
