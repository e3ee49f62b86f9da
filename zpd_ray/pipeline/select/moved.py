"""What the last stage of training has moved, by group of items: means over the pool, for ``delta_loss``."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from zpd_ray import selection
from zpd_ray.calibration import Fit
from zpd_ray.pipeline.cluster import parts
from zpd_ray.pipeline.fit.ability import followed_parts
from zpd_ray.rundir import Run
from zpd_ray.rundir.groups import group_numbers, named_groups
from zpd_ray.rundir.judging import nll_before, read_measured
from zpd_ray.rundir.layout import ANSWERS, POOL, StageFiles

STEP = 2.0**-20  # nats per token: falls are added up in whole ones, in any order to the same sum


def moved_groups(run: Run) -> list[str]:
    """Names of the groups that are compared; none where no method in use asks for it."""
    compares = any(getattr(selection.load(name), "compares", False) for name in run.methods)
    if not compares or run.config.select.delta_by != "group":
        return []
    return named_groups(run, run.store.names(POOL)[: followed_parts(run)], "select.delta_by")


def tell_moved(run: Run, fit: Fit) -> None:
    """Write moved.json of a stage: by group the mean fall of the NLL of items that were never trained on.

    "" stands for the items of all other groups, and of none. Nothing at stage 0.
    """
    names = moved_groups(run)
    if not names or fit.stage == 0:
        return
    total = parts.total(run.store.names(POOL), partial(_of_part, run, fit, names), parts.added)
    pairs = zip([*names, ""], total.T.tolist(), strict=True)
    means = {name: STEP * fall / items for name, (fall, items) in pairs if items}
    run.store.write_json(StageFiles(fit.stage).moved, means)


def _of_part(run: Run, fit: Fit, names: list[str], part: str) -> NDArray[np.int64]:
    """Sums of falls, in steps, and of items, by group: (2, n_groups)."""
    total = np.zeros((2, len(names) + 1), dtype=np.int64)
    now = read_measured(run, fit.stage, ANSWERS, part, ["nll"])["nll"]
    fall = nll_before(run, fit, part) - now.to_numpy().astype(np.float64)
    usable = pc.is_valid(now).to_numpy() & ~np.isnan(fall) & ~run.trained_before(fit.stage, part, len(fall))
    group = group_numbers(run, part, names)[usable]
    np.add.at(total[0], group, np.round(fall[usable] / STEP).astype(np.int64))
    np.add.at(total[1], group, 1)
    return total
