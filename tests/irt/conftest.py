"""Reference data of the irt tests; tests that need it are skipped where it is absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "irt"


def reference(name: str) -> dict[str, Any]:
    path = DATA / f"{name}_reference.json"
    if not path.exists():
        pytest.skip(f"reference data absent: {path}")
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


@pytest.fixture
def chembench() -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Responses (22, 2854) int8, dummies of the difficulty label (2854, 2), reference values."""
    values = reference("chembench")
    table = pytest.importorskip("pyarrow.parquet").read_table(DATA / "chembench.parquet").to_pandas()
    label = table["difficulty"].to_numpy()
    return table.iloc[:, 2:].to_numpy().T, np.stack([label == 1, label == 2], axis=1).astype(float), values


@pytest.fixture
def verbagg() -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Responses (316, 24), dummies scold, shout, self, do (24, 4), reference values."""
    values = reference("verbagg")
    long = pytest.importorskip("pyarrow.parquet").read_table(DATA / "verbagg.parquet").to_pandas()
    items = long.drop_duplicates("item").sort_values("item")
    columns = [items.btype == "scold", items.btype == "shout", items.situ == "self", items["mode"] == "do"]
    responses = long.pivot(index="person", columns="item", values="y").to_numpy()
    return responses, np.stack(columns, axis=1).astype(float), values
