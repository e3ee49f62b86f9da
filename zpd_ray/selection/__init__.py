"""Selection methods: what each makes of what was measured of an item is a score. One small file each."""

from __future__ import annotations

from zpd_ray.registry import Registry
from zpd_ray.selection.base import Candidates, FunctionMethod, Method

__all__ = ["METHODS", "Candidates", "Method", "load"]

METHODS = Registry(
    "selection method",
    "a function(items, select) -> scores or a class with the methods of zpd_ray.selection.Method",
    {
        "zpd": "zpd_ray.selection.zpd:Zpd",
        "zpd_static": "zpd_ray.selection.zpd_static:ZpdStatic",
        "zpd_sampled": "zpd_ray.selection.zpd_sampled:ZpdSampled",
        "random": "zpd_ray.selection.random:Random",
        "full": "zpd_ray.selection.full:Full",
        "ppl_high": "zpd_ray.selection.perplexity:PplHigh",
        "ppl_middle": "zpd_ray.selection.perplexity:PplMiddle",
        "ppl_low": "zpd_ray.selection.perplexity:PplLow",
        "ifd": "zpd_ray.selection.ifd:Ifd",
        "superfiltering": "zpd_ray.selection.superfiltering:Superfiltering",
        "rho": "zpd_ray.selection.rho:Rho",
        "data_whisperer": "zpd_ray.selection.data_whisperer:DataWhisperer",
        "judge": "zpd_ray.selection.judge:Judge",
        "delta_loss": "zpd_ray.selection.delta_loss:DeltaLoss",
        "difficulty_window": "zpd_ray.selection.difficulty_window:DifficultyWindow",
        "target_difficulty": "zpd_ray.selection.target_difficulty:TargetDifficulty",
    },
    ("needs", "score"),
)


def looks_for_zone(name: str) -> bool:
    """Whether a method looks for the zone (``Method``)."""
    return bool(getattr(load(name), "zone", False))


def is_blind(name: str) -> bool:
    """Whether a method looks at nothing that was measured (``Method``)."""
    return bool(getattr(load(name), "blind", False))


def load(name: str) -> Method:
    """The method of a name, or what ``package.module:function`` (or a class) names.

    Raises ZpdError for an unknown name (with the nearest), or one that cannot be imported.
    """
    found = METHODS.load(name)
    method: Method = found() if isinstance(found, type) else FunctionMethod(found)
    return method
