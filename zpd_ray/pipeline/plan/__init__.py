"""Timing a run in small, for ``zpd-ray plan``."""
