"""The run directory: its names, its files, its records, and what is checked before a run begins. No Ray."""

from zpd_ray.rundir.run import Run
from zpd_ray.rundir.store import Store

__all__ = ["Run", "Store"]
