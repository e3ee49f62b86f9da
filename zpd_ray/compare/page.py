"""A comparison as one HTML page that needs nothing else."""

from __future__ import annotations

from zpd_ray.compare.plot import svg
from zpd_ray.compare.result import Result
from zpd_ray.compare.show import grids, remarks
from zpd_ray.report.page.rendering import render


def page(result: Result, name: str) -> str:
    """Plot, tables and remarks; name: of the comparison's directory."""
    from markupsafe import Markup

    return render(
        "compare.html.j2", name=name, plot=Markup(svg(result)), grids=grids(result), remarks=remarks(result)
    )
