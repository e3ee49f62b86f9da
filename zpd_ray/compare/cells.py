"""One run of a comparison, by what it is told apart from the others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

Values = tuple[tuple[str, Any], ...]  # keys that are tuned, each with a value


@dataclass(frozen=True)
class Cell:
    """method: its name in the tables. budget: share of the pool, over all stages. values: what is tuned."""

    method: str
    budget: float
    seed: int
    values: Values = ()

    @property
    def place(self) -> str:
        """Its run directory, below the comparison's output."""
        tuned = ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in self.values) or "run"
        return f"runs/{in_path(self.method)}/{self.budget:g}/seed-{self.seed}/{in_path(tuned)}"

    def __str__(self) -> str:
        tuned = "".join(f", {key} = {value}" for key, value in self.values)
        return f"{self.method}, {100 * self.budget:g} %, seed {self.seed}{tuned}"


def in_path(name: str) -> str:
    """A name as part of a path."""
    return re.sub(r"[^\w.=,+-]+", "-", name)
