"""A user's own function as a grader."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from zpd_ray.errors import ZpdError
from zpd_ray.graders.base import CompletionGrader, Verdict


class PythonGrader(CompletionGrader):
    """``function(completion: str, answer: str) -> bool``, named as ``package.module:function``.

    Whatever goes wrong in it is an error that names it, never a wrong response. Its time is not bounded.
    """

    def __init__(self, name: str, function: Callable[[str, str], object]) -> None:
        """name: of the function, for messages."""
        self.name, self._function = name, function

    def accepts(self, answer: str | None, choices: list[str] | None) -> str | None:
        """Every answer: what the function makes of it is its own business."""
        return None

    def grade(self, completion: str, answer: str, choices: list[str] | None) -> Verdict:
        """Raises ZpdError when the function raises or returns something other than a bool."""
        try:
            right = self._function(completion, answer)
        except (Exception, SystemExit) as error:
            raise ZpdError(
                f"the grader {self.name} raised {type(error).__name__}: {error}, on the completion "
                f"{completion[:200]!r} and the answer {answer[:200]!r}; it must return True or False"
            ) from error
        if not isinstance(right, (bool, np.bool_)):
            raise ZpdError(
                f"the grader {self.name} returned {right!r:.200} of type {type(right).__name__}; "
                "expected True or False"
            )
        return Verdict(right=bool(right), parsed=True)
