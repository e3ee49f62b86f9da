"""What a grader is: it takes a completion and a gold answer, and says whether the completion is right."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa


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
        """Whether the model has to generate; if not, the measurement is graded (``greedy_match``)."""

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
