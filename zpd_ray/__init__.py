"""zpd-ray: pick the training samples that teach this model most, stage by stage, on a Ray cluster."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zpd_ray.pipeline.train.stages import stages

__version__ = "0.1.0"
__all__ = ["__version__", "stages"]


def __getattr__(name: str) -> Any:
    """``zpd_ray.stages``, which needs ray and torch, is imported when it is asked for."""
    if name == "stages":
        from zpd_ray.pipeline.train.stages import stages

        return stages
    raise AttributeError(f"module 'zpd_ray' has no attribute {name!r}")
