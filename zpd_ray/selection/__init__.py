"""Selection methods: what each makes of what was measured of an item is a score. One small file each."""

from __future__ import annotations

from zpd_ray.registry import Registry
from zpd_ray.selection.base import Candidates, FunctionMethod, Method

__all__ = ["METHODS", "Candidates", "Method", "load"]

METHODS = Registry(
    "selection method",
    "a function(items, select) -> scores or a class with the methods of zpd_ray.selection.Method",
    {"zpd": "zpd_ray.selection.zpd:Zpd", "random": "zpd_ray.selection.random:Random"},
    ("needs", "score"),
)


def load(name: str) -> Method:
    """The method of a name, or what ``package.module:function`` (or a class) names.

    Raises ZpdError for an unknown name (with the nearest), or one that cannot be imported.
    """
    found = METHODS.load(name)
    method: Method = found() if isinstance(found, type) else FunctionMethod(found)
    return method
