"""The central actor: collects the integer statistics of every part and fits the stage.

In a file without Ray Data, whose import takes a process two seconds of a core.
"""

from __future__ import annotations

from zpd_ray.calibration import Fit, Statistics, fit_stage
from zpd_ray.config import AbilityConfig

TOGETHER = 64  # statistics that are held before they are added up


class AbilityActor:
    """Statistics of one fit, keyed by a task's first part, so that a repeated task is no double count."""

    def __init__(self) -> None:
        self.begin("")

    def begin(self, fit: str) -> None:
        """Forget what belongs to other fits; what still arrives from them is not taken."""
        self._fit, self._seen, self._parts = fit, set[str](), list[Statistics]()

    def observe(self, fit: str, part: str, statistics: Statistics) -> None:
        """Take the statistics of a task, once."""
        if fit == self._fit and part not in self._seen:
            self._seen.add(part)
            self._parts.append(statistics)
            if len(self._parts) == TOGETHER:  # each sum takes time by its number of cells
                self._parts = [Statistics.merge(self._parts)]

    def observed(self) -> int:
        """How many tasks have reported."""
        return len(self._seen)

    def fit(
        self,
        config: AbilityConfig,
        stage: int,
        previous: Fit | None,
        groups: list[str] | None = None,
        of_prompts: bool = False,
    ) -> Fit:
        """``fit_stage`` from all observed parts."""
        return fit_stage(Statistics.merge(self._parts), config, stage, previous, groups, of_prompts)
