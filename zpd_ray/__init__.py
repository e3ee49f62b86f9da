"""zpd-ray: pick the training samples that teach this model most, stage by stage, on a Ray cluster.

What is meant to be imported stands in docs/api.md: these names, and those of the modules there.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zpd_ray.pipeline.train.stages import Stage, stages

__version__ = "0.2.0"
__all__ = ["Stage", "__version__", "stages"]


def __getattr__(name: str) -> Any:
    """``zpd_ray.stages`` and ``Stage``, which need ray and torch, are imported when they are asked for."""
    if name in ("Stage", "stages"):
        from zpd_ray.pipeline.train import stages as module

        return getattr(module, name)
    raise AttributeError(f"module 'zpd_ray' has no attribute {name!r}")
