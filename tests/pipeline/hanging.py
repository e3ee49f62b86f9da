"""What hangs: an engine, while there is a file "hang" in the run directory, and a grader."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa

from zpd_ray.config import Config
from zpd_ray.engines import ModelRef, Pulse, Scores
from zpd_ray.engines.simulated import SimulatedEngine


class HangingEngine(SimulatedEngine):
    def __init__(self, config: Config, model: ModelRef, longest: int | None = None) -> None:
        super().__init__(config, model, longest)
        self.hang, self.at = Path(config.output) / "hang", ""

    def score(self, items: pa.Table) -> Scores:
        self.at = items["item_id"][0].as_py()
        while self.hang.exists():
            time.sleep(0.1)
        return super().score(items)

    def pulse(self) -> Pulse:
        return Pulse(at=self.at)


def grade(completion: str, answer: str) -> bool:
    time.sleep(3600)
    return True
