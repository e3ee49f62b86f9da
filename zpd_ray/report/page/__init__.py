"""A run directory as one HTML page that needs nothing else: no network, no Ray, no file beside it."""

from zpd_ray.report.page.page import page, write_page

__all__ = ["page", "write_page"]
