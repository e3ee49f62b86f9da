"""AdaRFT: the items nearest to a target difficulty (Shi et al. 2025, arXiv 2504.05520)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

if TYPE_CHECKING:
    from zpd_ray.config import SelectConfig
    from zpd_ray.selection.base import Candidates


class TargetDifficulty:
    """The smallest |b - T| first: T is the difficulty at which ``select.target_p`` of the answers are right.

    Algorithm 1 takes the problems with the smallest |d - T|, then moves T by eta tanh(alpha (R - beta)), R
    being the mean reward of the batch. Taken of that rule is where it comes to rest, R = beta: with theta
    known, T = theta - logit(beta), beta = target_p (1/2 there and here). Not taken: its steps (eta, alpha)
    and clipping, which look for T where ability is not estimated, and d, the failures of another model in
    per cent. The order is that of zpd unless some b are less certain than others, or answers are guessed.
    """

    needs = ()

    def score(self, items: Candidates, select: SelectConfig) -> NDArray[np.float64]:
        """-|b - T|, logits; every item has one."""
        return -np.abs(items.b - (items.theta - float(logit(select.target_p))))
