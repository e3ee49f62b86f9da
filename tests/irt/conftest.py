"""Reference data of the irt tests: LSAT6 lies here; tests of the rest are skipped where it is absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent / "data"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "irt"
# Kept out of the repository, beside it: larger, or from packages under other licences.
ELSEWHERE = {
    "verbagg": "Verbal Aggression, 316 persons x 24 items (lme4's VerbAgg); estimates by mirt, eRm and lme4",
    "chembench": "22 models x 2,854 ChemBench questions (lamalab-org/irt-on-bench); exact estimates",
}


def reference(name: str) -> dict[str, Any]:
    """Estimates of other packages. Skips, saying what is missing, where the data is not."""
    path = (SHARED if name in ELSEWHERE else HERE) / f"{name}_reference.json"
    if name in ELSEWHERE and not path.exists():
        pytest.skip(f"no {path} and no {name}.parquet beside it: {ELSEWHERE[name]}")
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def lsat6() -> tuple[np.ndarray, np.ndarray]:
    """LSAT section 6: the 32 response patterns (32, 5) of 0 and 1, and how often each was seen (32,)."""
    raw = np.loadtxt(HERE / "lsat6.csv", delimiter=",", skiprows=1)
    return raw[:, :5], raw[:, 5]


@pytest.fixture
def chembench() -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Responses (22, 2854) int8, dummies of the difficulty label (2854, 2), reference values."""
    values = reference("chembench")
    table = pytest.importorskip("pyarrow.parquet").read_table(SHARED / "chembench.parquet").to_pandas()
    label = table["difficulty"].to_numpy()
    return table.iloc[:, 2:].to_numpy().T, np.stack([label == 1, label == 2], axis=1).astype(float), values


@pytest.fixture
def verbagg() -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Responses (316, 24), dummies scold, shout, self, do (24, 4), reference values."""
    values = reference("verbagg")
    long = pytest.importorskip("pyarrow.parquet").read_table(SHARED / "verbagg.parquet").to_pandas()
    items = long.drop_duplicates("item").sort_values("item")
    columns = [items.btype == "scold", items.btype == "shout", items.situ == "self", items["mode"] == "do"]
    responses = long.pivot(index="person", columns="item", values="y").to_numpy()
    return responses, np.stack(columns, axis=1).astype(float), values
