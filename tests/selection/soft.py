"""A grader that knows no right and wrong: models of random weights are told apart by it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zpd_ray.graders import ScoreGrader
from zpd_ray.graders.base import Scored


class Soft(ScoreGrader):
    """1 / (1 + NLL)."""

    samples = needs_first_choices = False

    def from_scores(self, scores: Scored) -> NDArray[np.float64]:
        """From 0 to 1."""
        return 1 / (1 + scores.nll.astype(np.float64))
