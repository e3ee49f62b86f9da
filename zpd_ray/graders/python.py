"""A user's own function as a grader."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from zpd_ray.errors import ZpdError
from zpd_ray.graders.base import CompletionGrader, Verdict

EXPECTED = "True, False, or a share from 0 to 1"


class PythonGrader(CompletionGrader):
    """``function(completion: str, answer: str) -> bool``, named as ``package.module:function``.

    It may return a share from 0 to 1. Where its second argument is called ``item`` it is given the whole
    item, a dict with the columns of ``schema.ITEM`` (``extra``, ``tools`` and ``response_more`` as objects),
    and no gold answer is needed; nor is one where it has no second argument, and judges completions alone.
    Whatever goes wrong in it is an error that names it, never a wrong response. A run calls it in a process
    of its own (``graders.apart``).
    """

    def __init__(self, name: str, function: Callable[..., object]) -> None:
        """name: of the function, for messages."""
        self.name, self._function = name, function
        second = _second(function)
        self.takes_item, self._alone = second == "item", second is None
        self.needs_answer = not self.takes_item and not self._alone

    def accepts(self, answer: str | None, choices: list[str] | None) -> str | None:
        """Every answer: what the function makes of it is its own business."""
        return None

    def grade(self, completion: str, answer: str, choices: list[str] | None) -> Verdict:
        """Raises ZpdError when the function raises or returns something other than a bool or a share."""
        return self._verdict(completion, answer)

    def grade_item(self, completion: str, item: dict[str, Any]) -> Verdict:
        """The same of an item."""
        return self._verdict(completion, item if self.takes_item else item["answer"])

    def _verdict(self, completion: str, against: Any) -> Verdict:
        try:
            right = self._function(completion) if self._alone else self._function(completion, against)
        except (Exception, SystemExit) as error:
            what = "item" if self.takes_item else "answer"
            beside = "" if self._alone else f" and the {what} {str(against)[:200]!r}"
            raise ZpdError(
                f"the grader {self.name} raised {type(error).__name__}: {error}, on the completion "
                f"{completion[:200]!r}{beside}; it must return {EXPECTED}"
            ) from error
        if isinstance(right, (bool, np.bool_)):
            return Verdict(bool(right), parsed=True)
        if isinstance(right, (int, float, np.number)) and 0 <= float(right) <= 1:  # NaN is not
            return Verdict(float(right), parsed=True)
        raise ZpdError(
            f"the grader {self.name} returned {right!r:.200} of type {type(right).__name__}; "
            f"expected {EXPECTED}"
        )


def _second(function: Callable[..., object]) -> str | None:
    """The name of a function's second argument; "" where it cannot be told, None where it takes one alone."""
    try:
        taken = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # of some functions that are not written in Python
        return ""
    if len(taken) > 1:
        return taken[1].name
    return "" if taken and taken[0].kind is inspect.Parameter.VAR_POSITIONAL else None
