"""Graders: is a completion right, given the gold answer? One small file each."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from zpd_ray.errors import ZpdError
from zpd_ray.graders.base import UNPARSED, Grader, Verdict
from zpd_ray.graders.choice import Choice
from zpd_ray.graders.exact import Exact
from zpd_ray.graders.greedy_match import GreedyMatch
from zpd_ray.graders.numeric import Numeric
from zpd_ray.graders.python import PythonGrader

__all__ = ["GRADERS", "UNPARSED", "Grader", "Verdict", "load"]

GRADERS: dict[str, Callable[[], Grader]] = {
    "greedy_match": GreedyMatch,
    "numeric": Numeric,
    "exact": Exact,
    "choice": Choice,
}


def load(name: str) -> Grader:
    """The grader of a name, or the function that ``package.module:function`` names.

    Raises ZpdError for an unknown name (with the nearest), or a function that cannot be imported.
    """
    if ":" in name:
        return PythonGrader(name)
    if name in GRADERS:
        return GRADERS[name]()
    near = difflib.get_close_matches(name, GRADERS, n=2, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else "give one of these"
    raise ZpdError(
        f"unknown grader {name!r}; expected one of {', '.join(GRADERS)}, or a function as "
        f"'package.module:function'; {hint}"
    )
