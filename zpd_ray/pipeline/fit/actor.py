"""The central actor: adds up the integer statistics of the whole pool and fits the stage.

In a file without Ray Data, whose import takes a process two seconds of a core.
"""

from __future__ import annotations

from zpd_ray.calibration import Fit, Statistics, fit_stage
from zpd_ray.config import AbilityConfig


class AbilityActor:
    """Holds nothing between calls: one that dies is restarted by Ray, and asked again."""

    def fit(
        self,
        sums: list[Statistics],
        config: AbilityConfig,
        stage: int,
        previous: Fit | None,
        groups: list[str] | None = None,
        of_prompts: bool = False,
    ) -> Fit:
        """``fit_stage`` from the sums of all parts."""
        return fit_stage(Statistics.merge(sums), config, stage, previous, groups, of_prompts)
