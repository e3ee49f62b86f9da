"""Trackers: where a run's figures go beside its own directory. One small file each, and a line in TRACKERS.

They are told by the driver, from the files of the run directory alone and after a step has closed
(``telling``), what ``figures`` makes of it. No result of a run depends on them.
"""

from __future__ import annotations

from importlib.util import find_spec

from zpd_ray.config import Config
from zpd_ray.errors import ZpdError
from zpd_ray.registry import Registry
from zpd_ray.tracking.base import Point, Tracker

__all__ = ["TRACKERS", "Point", "Tracker"]

TRACKERS = Registry(
    "tracker",
    "a class like zpd_ray.tracking.Tracker",
    {
        "tensorboard": "zpd_ray.tracking.tensorboard:TensorBoard",
        "mlflow": "zpd_ray.tracking.mlflow:MLflow",
        "wandb": "zpd_ray.tracking.wandb:WandB",
    },
    attributes=("log", "close"),
)


def check(config: Config) -> None:
    """Raises ZpdError for a tracker that is not there, or whose library is not installed."""
    for name in config.track.targets:
        library = getattr(TRACKERS.load(name), "needs", None)
        if library is not None and find_spec(library) is None:
            raise ZpdError(
                f"track.{name} needs the package {library}, which is not installed here; install it where "
                f'the command runs (pip install "zpd-ray[{name}]"), or leave the key out'
            )
