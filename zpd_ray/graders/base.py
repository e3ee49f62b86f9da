"""What a grader is: it takes a completion and a gold answer, and says whether the completion is right."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zpd_ray.errors import ZpdError


class Verdict(NamedTuple):
    """What became of a completion. right: which share of it, 0 to 1; True is all of it. What is not parsed
    is not right."""

    right: float
    parsed: bool


UNPARSED = Verdict(right=False, parsed=False)


class Grader(Protocol):
    """Compares completions with gold answers. What it cannot parse is wrong and unparsed, never an error."""

    @property
    def needs_answer(self) -> bool:
        """Whether an item without a gold answer cannot be graded."""

    @property
    def needs_completion(self) -> bool:
        """Whether the model has to generate; one that needs none is a ``ScoreGrader``."""

    def accepts(self, answer: str | None, choices: list[str] | None) -> str | None:
        """None, or the reason why this gold answer cannot be graded."""

    @property
    def guessable(self) -> bool:
        """Whether a guess can be right by chance, so that ``options`` must be asked."""

    def options(self, choices: pa.ChunkedArray) -> np.ndarray:
        """Among how many options an answer may be guessed, int64 (n,); 0 where guessing does not pay.

        choices: option texts per item, lists of strings, nullable.
        """

    def grade(self, completion: str, answer: str, choices: list[str] | None) -> Verdict:
        """Whether the completion gives the gold answer."""


def grade_item(grader: Grader, completion: str, item: dict[str, Any]) -> Verdict:
    """The verdict on a completion; a grader that looks at the whole item (``graders.python``) is given it."""
    own = getattr(grader, "grade_item", None)
    return own(completion, item) if own else grader.grade(completion, item["answer"], item["choices"])


class CompletionGrader:
    """Facts about most graders: they need a completion and a gold answer, and a guess is never right."""

    needs_answer = True
    needs_completion = True
    guessable = False

    def options(self, choices: pa.ChunkedArray) -> np.ndarray:
        """0 for every item."""
        return np.zeros(len(choices), dtype=np.int64)

    def answer_of(self, completion: str, choices: list[str] | None) -> str | None:
        """The answer that a completion gives, equal answers alike; None: there is none, or it is not told."""
        return None


class Scored(Protocol):
    """What a pass over the references has told: the arrays of ``engines.Scores``, each (n,)."""

    @property
    def nll(self) -> np.ndarray:
        """Mean over the response tokens, nats per token; NaN on error."""

    @property
    def n_tokens(self) -> np.ndarray:
        """Response tokens, the end-of-text token among them."""

    @property
    def n_greedy(self) -> np.ndarray:
        """How many of them were the first choice; -1 where that was not counted."""


class ScoreGrader(CompletionGrader):
    """Grades the measurement of the reference itself: nothing is generated, and no gold answer is needed.

    samples: whether ``measure.rollouts`` responses are drawn, each right with the share that ``from_scores``
    tells; else there is one. needs_first_choices: whether ``Scores.n_greedy`` is looked at, which an engine
    may leave uncounted.
    """

    needs_answer = False
    needs_completion = False
    samples = True
    needs_first_choices = True

    def from_scores(self, scores: Scored) -> NDArray[np.float64]:
        """Which share of a response is right, float64 (n,), 0 to 1; of an item with an error anything."""
        raise ZpdError(f"the grader {type(self).__name__} has no method from_scores(scores)")

    def accepts(self, answer: str | None, choices: list[str] | None) -> str | None:
        """Every item: the reference itself is what is compared."""
        return None

    def grade(self, completion: str, answer: str, choices: list[str] | None) -> Verdict:
        """Raises ZpdError, since there is nothing to compare a completion with."""
        raise ZpdError(
            f"the grader {type(self).__name__} grades measurements of references (from_scores); got a "
            "completion; take a grader that compares completions, as exact does"
        )
