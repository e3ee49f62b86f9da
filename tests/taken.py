"""One finished run to list, explain and export: replay, a method beside, rows of every fate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from zpd_ray.engines import Scores
from zpd_ray.engines.simulated import SimulatedEngine
from zpd_ray.rundir import Run

UNREADABLE = "q7"  # the engine has no NLL for it
ITEMS = 600


class Engine(SimulatedEngine):
    """Simulated, but for one item that it cannot score."""

    def score(self, items: pa.Table) -> Scores:
        scores = super().score(items)
        at = np.flatnonzero([name == UNREADABLE for name in items["item_id"].to_pylist()])
        scores.nll[at] = np.nan
        for row in at:
            scores.error[row] = "the tokens are not of this world"
        return scores


def row(i: int) -> dict[str, Any]:
    """A sample with an id, a group and columns of the user's own."""
    own = {"level": i % 5, "data_source": "made/up"} if i % 2 else {"level": i % 5}
    return {
        "item_id": f"q{i}",
        "prompt": f"question {i}, in [bold] letters",
        "response": " ".join(["word"] * (1 + i % 7)) + f" {i}",
        "answer": str(i),
        "group": f"g{i % 3}",
    } | own


def rows() -> list[dict[str, Any]]:
    """600 items, and after them a duplicate, an id used twice, and a row without a prompt."""
    again = {**row(3), "item_id": "again"}
    clash = {**row(1000), "item_id": "q5"}
    blank = {**row(1001), "item_id": "blank", "prompt": " "}
    return [*map(row, range(ITEMS)), again, clash, blank]


@pytest.fixture(scope="session")
def taken(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two stages of 60 items in 4 parts, a fifth of them replayed; ``random`` lies beside."""
    from tests.pipeline.conftest import perform_in
    from zpd_ray.rundir.begin import recorded_run

    directory = tmp_path_factory.mktemp("taken")
    for name, content in (("pool", rows()), ("eval", [{**row(2000), "item_id": "held-out"}])):
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in content))
    config, _ = perform_in(
        directory,
        pool={"items_per_part": 150},
        evaluation={"path": str(directory / "eval.jsonl")},
        engine={"name": "tests.taken:Engine"},
        measure={"rollouts": 8},
        select={"replay": 0.2, "beside": ["random"]},
    )
    return recorded_run(config.output)


@contextmanager
def reading(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the tables that are read meanwhile."""
    names: list[str] = []
    read = type(run.store).read_table

    def noted(store: Any, name: str, columns: list[str] | None = None) -> pa.Table:
        names.append(name)
        return read(store, name, columns)

    with monkeypatch.context() as patch:
        patch.setattr(type(run.store), "read_table", noted)
        yield names


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The values in a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
