"""A user's own function as a grader."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import reduce
from importlib import import_module

import numpy as np

from zpd_ray.errors import ZpdError
from zpd_ray.graders.base import Verdict


class PythonGrader:
    """``function(completion: str, answer: str) -> bool``, named as ``package.module:function``.

    Whatever goes wrong in it is an error that names it, never a wrong response. Its time is not bounded.
    """

    needs_answer = True
    needs_completion = True

    def __init__(self, name: str) -> None:
        """Errors: ZpdError when the name does not lead to something callable."""
        self.name = name
        self._function = _import(name)

    def accepts(self, answer: str | None, choices: list[str] | None) -> str | None:
        """Every answer: what the function makes of it is its own business."""
        return None

    def grade(self, completion: str, answer: str, choices: list[str] | None) -> Verdict:
        """Errors: ZpdError when the function raises or returns something other than a bool."""
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


def _import(name: str) -> Callable[[str, str], object]:
    module_name, _, path = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *path.split(".")]):
        raise ZpdError(f"the grader {name!r} is no function name; expected 'package.module:function'")
    try:
        module = import_module(module_name)
    except (Exception, SystemExit) as error:
        raise ZpdError(
            f"the grader {name!r} cannot be imported: {type(error).__name__}: {error}; "
            f"make {module_name} importable on every node, e.g. install it or put its directory on PYTHONPATH"
        ) from error
    try:
        function = reduce(getattr, path.split("."), module)
    except AttributeError as error:
        there = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        near = difflib.get_close_matches(path, there, n=3, cutoff=0.0)
        raise ZpdError(
            f"the module {module_name} has no {path!r}; the nearest are {', '.join(near) or 'none'}; "
            f"correct {name!r}"
        ) from error
    if not callable(function):
        raise ZpdError(
            f"the grader {name!r} is a {type(function).__name__}; "
            "expected a function(completion, answer) -> bool"
        )
    return function
