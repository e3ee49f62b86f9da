"""Greedy decoding would reproduce the reference: graded from the measurement, with no generation."""

from __future__ import annotations

import numpy as np

from zpd_ray.errors import ZpdError
from zpd_ray.graders.base import CompletionGrader, Verdict


class GreedyMatch(CompletionGrader):
    """Right when every reference token was the model's first choice."""

    needs_answer = False
    needs_completion = False

    def accepts(self, answer: str | None, choices: list[str] | None) -> str | None:
        """Every item: the reference itself is what is compared."""
        return None

    def grade(self, completion: str, answer: str, choices: list[str] | None) -> Verdict:
        """Raises ZpdError, since there is nothing to compare a completion with."""
        raise ZpdError("greedy_match grades measurements, not completions; got a completion; use matches()")


def matches(n_greedy: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
    """bool (n,): all of ``n_tokens`` reference tokens (integers, (n,)) were first choices; False for none."""
    n_greedy, n_tokens = np.asarray(n_greedy), np.asarray(n_tokens)
    return (n_greedy == n_tokens) & (n_tokens > 0)
