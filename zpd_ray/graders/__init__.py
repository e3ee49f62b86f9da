"""Graders: is a completion right, given the gold answer? One small file each."""

from __future__ import annotations

from zpd_ray.graders.base import UNPARSED, CompletionGrader, Grader, Verdict, grade_item
from zpd_ray.graders.python import PythonGrader
from zpd_ray.registry import Registry

__all__ = ["GRADERS", "UNPARSED", "CompletionGrader", "Grader", "Verdict", "grade_item", "load"]

GRADERS = Registry(
    "grader",
    "a function(completion, answer) -> bool or share, or a class with the methods of zpd_ray.graders.Grader",
    {
        "greedy_match": "zpd_ray.graders.greedy_match:GreedyMatch",
        "numeric": "zpd_ray.graders.numeric:Numeric",
        "exact": "zpd_ray.graders.exact:Exact",
        "choice": "zpd_ray.graders.choice:Choice",
    },
    ("needs_answer", "needs_completion", "guessable", "accepts", "options", "grade"),
)


def load(name: str) -> Grader:
    """The grader of a name, or what ``package.module:function`` (or a class) names.

    Raises ZpdError for an unknown name (with the nearest), or one that cannot be imported.
    """
    found = GRADERS.load(name)
    grader: Grader = found() if isinstance(found, type) else PythonGrader(name, found)
    return grader
