"""What a fit and a method say of each item of a part: for selection, and for whoever explains one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zpd_ray import schema, selection
from zpd_ray.calibration import AIM, Fit
from zpd_ray.difficulty import guess_floor
from zpd_ray.judging import Aim, Judged
from zpd_ray.matching import probability, zpd_score
from zpd_ray.rundir.groups import group_names, group_numbers
from zpd_ray.rundir.layout import ANSWERS, StageFiles
from zpd_ray.rundir.records import load_fit
from zpd_ray.rundir.run import Run
from zpd_ray.selection import Candidates, Method
from zpd_ray.selection.keys import Keys, shuffled

RESPONSES = ("successes", "rollouts")
# Of ``answers``: 0 where not asked.
COUNTS = ("n_tokens", "n_greedy", *RESPONSES, "credit", "unparsed", "n_other")
JUDGED = ["b", "b_sd", "p", "score"]


class Known(NamedTuple):
    """What was found of n items of a part when each was last measured.

    answers: a row for each; stage: at which it was; row: its place in the part. Arrays (n,).
    """

    answers: pa.Table
    stage: NDArray[np.int64]
    part: str
    row: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Known:
        """Some of the items."""
        return Known(self.answers.take(rows), self.stage[rows], self.part, self.row[rows])


def read_measured(
    run: Run, stage: int, measure: str, part: str, columns: list[str] | None = None
) -> pa.Table:
    """What a measure found of a part at a stage, a row for each of its items.

    Where the stage did not measure all: nulls for the others, and 0 in counts.
    """
    if not run.in_rounds(stage):
        return run.store.read_table(f"{StageFiles(stage).measurements(measure)}/{part}", columns)
    if columns == ["item_id"]:
        return read_measured(run, 0, measure, part, columns)
    found = _some_rows(run, stage, measure, part, columns)
    n = run.store.count_rows(f"{StageFiles(0).measurements(measure)}/{part}")
    place, none = np.zeros(n, dtype=np.int64), np.ones(n, dtype=bool)
    rows = found["row"].to_numpy()
    place[rows], none[rows] = np.arange(len(rows)), False
    aligned = found.drop_columns("row").take(pa.array(place, mask=none))
    for at, column in enumerate(aligned.schema):
        if column.name == "item_id":
            ids = read_measured(run, 0, measure, part, ["item_id"])["item_id"]
            aligned = aligned.set_column(at, column, ids)
        elif column.name in COUNTS:
            aligned = aligned.set_column(at, column, pc.fill_null(aligned[column.name], 0))
    return aligned


def last_measured(run: Run, stage: int, measure: str, part: str, columns: list[str] | None = None) -> Known:
    """What a measure last found of each item of a part, up to a stage."""
    first = 0 if run.in_rounds(stage) else stage
    tables = [read_measured(run, first, measure, part, columns)]
    n = tables[0].num_rows
    place, at = np.arange(n), np.full(n, first)
    for later in range(first + 1, stage + 1):
        some = _some_rows(run, later, measure, part, columns)
        if some.num_rows == 0:
            continue
        rows = some["row"].to_numpy()
        place[rows] = sum(table.num_rows for table in tables) + np.arange(len(rows))
        at[rows] = later
        tables.append(some.drop_columns("row"))
    if len(tables) == 1:
        return Known(tables[0], at, part, np.arange(n))
    # A run that an earlier version began has fewer columns in its first stages.
    every = pa.concat_tables(tables, promote_options="default")
    return Known(every.take(place), at, part, np.arange(n))


def scored_columns(run: Run) -> list[str] | None:
    """The columns of ``answers`` that scores stand on: all (None) but the texts that may be trained on."""
    if run.config.train.target != "own":
        return None
    return [name for name in schema.MEASUREMENT.names if name != "own"]


def _some_rows(run: Run, stage: int, measure: str, part: str, columns: list[str] | None) -> pa.Table:
    """What was measured of a part in rounds, and the ``row`` of each; no rows where nothing was."""
    name = f"{StageFiles(stage).measurements(measure)}/{part}"
    if run.store.exists(name):
        return run.store.read_table(name, None if columns is None else [*columns, "row"])
    none = read_measured(run, 0, measure, part, columns).slice(0, 0)
    return none.append_column("row", pa.array([], pa.int64()))


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
    known: Known,
    order: Keys,
    guess: NDArray[np.float64] | None = None,
) -> pa.Table:
    """float64 columns ``JUDGED`` of a part's n items by the method ``name``, whatever the other items are.

    known: ``last_measured`` of the part at the fit's stage; order: ``selection_order`` of its items; guess:
    floors, in place of those that the run's grader tells. Of an item that could not be measured the numbers
    mean nothing. b and p are the fit's, also where a method that is ``static`` scores by those of stage 0.
    """
    method = selection.load(name)
    guess = guess_floor(run.options(part, known.answers.num_rows)) if guess is None else guess
    now = seen = _candidates(run, fit, part, method, order, known, guess)
    if getattr(method, "static", False) and fit.stage:
        first = last_measured(run, 0, ANSWERS, part, scored_columns(run))
        seen = _candidates(run, load_fit(run.store, 0), part, method, order, first, guess)
    return pa.table([now.b, now.b_sd, now.p, method.score(seen, run.config.select)], names=JUDGED)


def _candidates(
    run: Run,
    fit: Fit,
    part: str,
    method: Method,
    order: Keys,
    known: Known,
    guess: NDArray[np.float64],
) -> Candidates:
    """What a fit and the measurements of its stage, or the last before it, say of the items of a part."""
    ahead, select = group_ahead(run, fit, part), run.config.select
    theta = fit.ability.theta if ahead is None else fit.ability.theta + ahead
    b, b_sd, zpd = difficulties(run, fit, known, guess, Aim(select.target_p, select.criterion))
    p = probability(theta, b, guess)
    tables = {need: last_measured(run, fit.stage, need, part).answers for need in method.needs}
    tables[ANSWERS] = known.answers
    median = math.exp(fit.calibration.location)
    if fit.stage == 0 or not getattr(method, "compares", False):
        return Candidates(theta, order, b, b_sd, p, guess, zpd, tables, median)
    before, fall = nll_before(run, fit, part), _fall_of_group(run, fit, part)
    return Candidates(theta, order, b, b_sd, p, guess, zpd, tables, median, before, fall)


def _fall_of_group(run: Run, fit: Fit, part: str) -> NDArray[np.float64] | None:
    """By which the NLL of each item's group has fallen, (n,); NaN before it is known, None if not wanted."""
    if run.config.select.delta_by != "group":
        return None
    name = StageFiles(fit.stage).moved
    means = run.store.read_json(name) if run.store.exists(name) else {}
    groups = group_names(run, part).tolist()
    return np.array([means.get(group, means.get("", math.nan)) for group in groups], dtype=np.float64)


def nll_before(run: Run, fit: Fit, part: str) -> NDArray[np.float64]:
    """Of each item of a part at the stage that ``select.delta_since`` names, NaN where it has none: (n,)."""
    stage = 0 if run.config.select.delta_since == "base" else fit.stage - 1
    return read_measured(run, stage, ANSWERS, part, ["nll"])["nll"].to_numpy().astype(np.float64)


def difficulties(run: Run, fit: Fit, known: Known, guess: NDArray[np.float64], aim: Aim = AIM) -> Judged:
    """b of each item, its sd and its score at the fit's theta; b on the scale of the fit. guess: (n,).

    An item that the fit's stage has measured is judged by that fit. Of another one b is what the fit of the
    stage that last measured it says, and what has drifted since; its variance grows by what items move on
    their own at each stage since, and by the error of what has drifted (``Probed.drift``).
    """
    if (known.stage == fit.stage).all():
        return _judged(run, fit, known, guess, aim)
    found = Judged(*np.empty((3, len(known.stage))))
    for stage in np.unique(known.stage).tolist():
        rows = np.flatnonzero(known.stage == stage)
        if stage == fit.stage:
            now = _judged(run, fit, known.take(rows), guess[rows], aim)
        else:
            now = _predicted(run, fit, stage, known.take(rows), guess[rows], aim)
        for values, of_rows in zip(found, now, strict=True):
            values[rows] = of_rows
    return found


def _seen(known: Known) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """NLL, successes and rollouts of each item."""
    successes, rollouts = (known.answers[column].to_numpy().astype(np.int64) for column in RESPONSES)
    nll = pc.fill_null(known.answers["nll"], 1.0).to_numpy().astype(np.float64)  # may not be chosen anyway
    return nll, successes, rollouts


def _judged(run: Run, fit: Fit, known: Known, guess: NDArray[np.float64], aim: Aim) -> Judged:
    """Of items that the fit's stage has measured."""
    return fit.judge(*_seen(known), guess, aim, _ahead(run, fit, known))


def _ahead(run: Run, fit: Fit, known: Known) -> NDArray[np.float64] | None:
    ahead = group_ahead(run, fit, known.part)
    return None if ahead is None else ahead[known.row]


def _predicted(run: Run, fit: Fit, stage: int, known: Known, guess: NDArray[np.float64], aim: Aim) -> Judged:
    """Of items that were last measured at an earlier ``stage``; b taken as normal."""
    before, theta = load_fit(run.store, stage), fit.ability.theta
    then, then_sd = before.difficulty(*_seen(known), guess, _ahead(run, before, known))
    # The later fit has another estimate of the earlier theta; what p was then does not change by that.
    b, variance = then + (fit.ability.at(stage).theta - before.ability.theta), then_sd**2
    for later in range(stage + 1, fit.stage + 1):
        since = fit if later == fit.stage else load_fit(run.store, later)
        if since.probed is not None:
            scale = since.ability.at(stage).theta - fit.ability.at(stage).theta
            drift, of_drift = since.probed.drift(*_sorted_by(run, since, known, b + scale))
            b, variance = b + drift, variance + of_drift
    ahead, b_sd = _ahead(run, fit, known), np.sqrt(variance)
    return Judged(b, b_sd, zpd_score(theta, b if ahead is None else b - ahead, b_sd, guess, *aim))


def drifted_part(run: Run, fit: Fit, known: Known) -> NDArray[np.int64]:
    """Which part that has drifted each item belongs to that the fit's stage has not measured: (n,).

    ``Probed.part``: its place, or -1.
    """
    assert fit.probed is not None
    before = replace(fit, probed=replace(fit.probed, drifted=[]))
    judged = difficulties(run, before, known, guess_floor(run.options(known.part, len(known.stage))))
    return fit.probed.part(*_sorted_by(run, fit, known, judged.b))


def _sorted_by(
    run: Run, fit: Fit, known: Known, b: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """What tells the parts that probes were sorted into: b but for the group's own ability, and group."""
    ahead = _ahead(run, fit, known)
    return b if ahead is None else b - ahead, group_names(run, known.part)[known.row]


def mastered(run: Run, measured: pa.Table, judged: pa.Table) -> NDArray[np.bool_]:
    """Which items of a part may be replayed: every response right, and p from ``select.mastered_p`` on."""
    successes, rollouts = (measured[name].to_numpy() for name in RESPONSES)
    right = (successes == rollouts) & (rollouts > 0) & pc.is_valid(measured["nll"]).to_numpy()
    return np.asarray((judged["p"].to_numpy() >= run.config.select.mastered_p) & right)
