"""Greedy decoding would reproduce the reference: graded from the measurement, with no generation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zpd_ray.graders.base import Scored, ScoreGrader


class GreedyMatch(ScoreGrader):
    """Right when every reference token was the model's first choice: one response, all or nothing."""

    samples = False

    def from_scores(self, scores: Scored) -> NDArray[np.float64]:
        """1 where the greedy response is the reference, else 0."""
        return matches(scores.n_greedy, scores.n_tokens).astype(np.float64)


def matches(n_greedy: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
    """bool (n,): all of ``n_tokens`` reference tokens (integers, (n,)) were first choices; False for none."""
    n_greedy, n_tokens = np.asarray(n_greedy), np.asarray(n_tokens)
    return (n_greedy == n_tokens) & (n_tokens > 0)
