"""The central actor: fits a stage from the integer statistics of the whole pool.

In a file without Ray Data, whose import takes a process two seconds of a core.
"""

from __future__ import annotations

from zpd_ray.calibration import Fit, Statistics, fit_stage
from zpd_ray.config import AbilityConfig


class AbilityActor:
    """Holds nothing between calls: one that dies is restarted by Ray, and asked again."""

    def fit(
        self,
        statistics: Statistics,
        config: AbilityConfig,
        stage: int,
        previous: Fit | None,
        groups: list[str] | None = None,
        of_prompts: bool = False,
    ) -> Fit:
        """``fit_stage``."""
        return fit_stage(statistics, config, stage, previous, groups, of_prompts)
