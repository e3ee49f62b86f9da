"""How likely a sampled response is to be the reference: graded from the measurement, with no generation.

At temperature 1 the reference is sampled with the probability exp(-sum of its tokens' NLL), by the chain
rule: its end-of-text token is among them. Each of ``measure.rollouts`` responses is right with it, which is
what sampling as many and comparing their tokens would give, at the cost of none. A text that tokens spell in
several ways is a little likelier than that. On the evaluation set accuracy is the mean probability: the share
right that is expected of one sampled response an item, without the noise of sampling it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zpd_ray.graders.base import Scored, ScoreGrader


class Likelihood(ScoreGrader):
    """Right as often as a response sampled at temperature 1 is the reference, token for token."""

    needs_first_choices = False

    def from_scores(self, scores: Scored) -> NDArray[np.float64]:
        """exp(-n_tokens nll); NaN where there is no NLL."""
        return np.exp(-scores.n_tokens * scores.nll.astype(np.float64))
