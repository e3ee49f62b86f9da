"""What a fit and a method say of each item of a part: for selection, and for whoever explains one."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zpd_ray import selection
from zpd_ray.calibration import Fit
from zpd_ray.difficulty import guess_floor
from zpd_ray.judging import Aim
from zpd_ray.matching import probability
from zpd_ray.rundir.groups import group_numbers
from zpd_ray.rundir.layout import ANSWERS, StageFiles
from zpd_ray.rundir.records import load_fit
from zpd_ray.rundir.run import Run
from zpd_ray.selection import Candidates, Method
from zpd_ray.selection.keys import Keys, shuffled

RESPONSES = ("successes", "rollouts")
JUDGED = ["b", "b_sd", "p", "score"]


def read_measured(
    run: Run, stage: int, measure: str, part: str, columns: list[str] | None = None
) -> pa.Table:
    """What a measure found of a part at a stage."""
    return run.store.read_table(f"{StageFiles(stage).measurements(measure)}/{part}", columns)


def selection_order(run: Run, stage: int, ids: Keys) -> Keys:
    """What breaks ties of a stage's scores, for items with these ``hashing.item_keys``: uint64 (n,)."""
    return shuffled(ids, run.config.seed, stage, "select")


def group_ahead(run: Run, fit: Fit, part: str) -> NDArray[np.float64] | None:
    """Logits by which ability on each item's group is above the fit's theta: (n,); None without groups."""
    if fit.groups is None:
        return None
    return fit.groups.ahead(fit.ability.theta, group_numbers(run, part, fit.groups.names))


def judge(
    run: Run,
    fit: Fit,
    name: str,
    part: str,
    measured: pa.Table,
    order: Keys,
    guess: NDArray[np.float64] | None = None,
) -> pa.Table:
    """float64 columns ``JUDGED`` of a part's n items by the method ``name``, whatever the other items are.

    measured: the part's answers at the fit's stage; order: ``selection_order`` of its items; guess: floors,
    in place of those that the run's grader tells. Of an item that could not be measured the numbers mean
    nothing. b and p are the fit's, also where a method that is ``static`` scores by those of stage 0.
    """
    method = selection.load(name)
    guess = guess_floor(run.options(part, measured.num_rows)) if guess is None else guess
    now = seen = _candidates(run, fit, part, method, order, measured, guess)
    if getattr(method, "static", False) and fit.stage:
        first = read_measured(run, 0, ANSWERS, part)
        seen = _candidates(run, load_fit(run.store, 0), part, method, order, first, guess)
    return pa.table([now.b, now.b_sd, now.p, method.score(seen, run.config.select)], names=JUDGED)


def _candidates(
    run: Run,
    fit: Fit,
    part: str,
    method: Method,
    order: Keys,
    measured: pa.Table,
    guess: NDArray[np.float64],
) -> Candidates:
    """What a fit and the measurements of its stage say of the items of a part."""
    ahead, select = group_ahead(run, fit, part), run.config.select
    theta = fit.ability.theta if ahead is None else fit.ability.theta + ahead
    successes, rollouts = (measured[column].to_numpy().astype(np.int64) for column in RESPONSES)
    nll = pc.fill_null(measured["nll"], 1.0).to_numpy().astype(np.float64)  # may not be chosen anyway
    b, b_sd, zpd = fit.judge(nll, successes, rollouts, guess, Aim(select.target_p, select.criterion), ahead)
    p = probability(theta, b, guess)
    tables = {need: read_measured(run, fit.stage, need, part) for need in method.needs} | {ANSWERS: measured}
    median = math.exp(fit.calibration.location)
    return Candidates(theta, order, b, b_sd, p, guess, zpd, tables, median)


def mastered(run: Run, measured: pa.Table, judged: pa.Table) -> NDArray[np.bool_]:
    """Which items of a part may be replayed: every response right, and p from ``select.mastered_p`` on."""
    successes, rollouts = (measured[name].to_numpy() for name in RESPONSES)
    right = (successes == rollouts) & (rollouts > 0) & pc.is_valid(measured["nll"]).to_numpy()
    return np.asarray((judged["p"].to_numpy() >= run.config.select.mastered_p) & right)
