"""The command line ``zpd-ray``: options and messages, no logic."""

from zpd_ray.cli.app import main

__all__ = ["main"]
