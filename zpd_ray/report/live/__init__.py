"""A run as it goes on, from its directory alone: what it is at, how far, what is left, what came of it."""

from zpd_ray.report.live.look import Live, Look

__all__ = ["Live", "Look"]
