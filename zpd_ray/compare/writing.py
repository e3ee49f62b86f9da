"""The tables, the plot and the page of a comparison into its output."""

from __future__ import annotations

from zpd_ray.compare.cells import Cell
from zpd_ray.compare.page import page
from zpd_ray.compare.plan import Plan
from zpd_ray.compare.plot import svg
from zpd_ray.compare.result import Result, result
from zpd_ray.compare.show import markdown
from zpd_ray.errors import ZpdError
from zpd_ray.plain import to_json
from zpd_ray.rundir import Store
from zpd_ray.rundir.layout import REPORT

TABLE, VALUES, PLOT = "table.md", "table.json", "plot.svg"


def write_result(plan: Plan, failed: dict[Cell, str]) -> Result:
    """What the finished runs have come to; it is written into the comparison's output, too.

    As table.md, table.json, plot.svg, and report.html with all of it. Raises ZpdError where no run is
    finished.
    """
    found = result(plan, failed)
    if found is None:
        why = next(iter(failed.items()), None)
        told = f"; {why[0]} did not end: {why[1]}" if why else ""
        raise ZpdError(
            f"the comparison in {plan.comparison.output} has no finished run to tell of{told}; expected one "
            "at least, which `zpd-ray compare` without --table makes"
        )
    store = Store(plan.comparison.output)
    store.write_bytes(TABLE, markdown(found).encode())
    store.write_bytes(VALUES, (to_json(found) + "\n").encode())
    store.write_bytes(PLOT, svg(found).encode())
    store.write_bytes(REPORT, page(found, store.root).encode(errors="replace"))
    return found
