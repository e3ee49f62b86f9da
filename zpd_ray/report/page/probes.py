"""What probes say at each stage that asks them: how far items move, and what has drifted. As rows."""

from __future__ import annotations

from collections.abc import Iterable

from zpd_ray.calibration import Fit
from zpd_ray.report.page.estimates import Z
from zpd_ray.report.page.sample import cut
from zpd_ray.report.page.tables import Rows, Table


def drift_rows(fits: Iterable[Fit]) -> Rows:
    """By stage and part that has drifted: its shift in logits with its 95 % interval, for the plot."""
    rows = []
    for fit in fits:
        for part in fit.probed.drifted if fit.probed else ():
            low, high = part.shift - Z * part.se, part.shift + Z * part.se
            name = f"stage {fit.stage}: {cut(str(part), 80)}"
            said = (
                f"{name}, {part.shift:z.2f} logits harder ({low:z.2f} to {high:z.2f}), {part.probes} probes"
            )
            rows.append({"part": name, "value": part.shift, "low": low, "high": high, "said": said})
    return rows


def drift_table(fits: Iterable[Fit]) -> Table:
    """A row for each part that has drifted, or one for a stage where none has."""
    columns = ["stage", "probes asked", "items move by, sd", "drifted", "harder by", "standard error"]
    rows = []
    for fit in fits:
        if (probed := fit.probed) is None:
            continue
        of_stage = [str(fit.stage), str(probed.asked), f"{probed.moved:.2f}"]
        told = [
            [
                str(part),
                f"{part.shift:z.2f}",
                f"{part.se:.2f}",
                f"{part.moved:.2f}",
                f"{part.p:.2g}",
                str(part.probes),
                str(part.items),
            ]
            for part in probed.drifted
        ] or [["nothing", "-", "-", "-", f"{probed.least_p:.2g}", "-", "-"]]
        rows += [[*of_stage, *each] for each in told]
    columns += ["its items by, sd", "p", "its probes", "measured again"]
    return Table("Probes and drift, in logits", columns, rows)
