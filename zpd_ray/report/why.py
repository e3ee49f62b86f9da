"""Why an item was selected at a stage, or was not: what was measured of it, and what followed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from zpd_ray.hashing import item_keys
from zpd_ray.matching import zone_of
from zpd_ray.report.find import Found
from zpd_ray.rundir import Run
from zpd_ray.rundir.judging import judge, mastered, read_measured, selection_order
from zpd_ray.rundir.layout import ANSWERS, FIT, POOL, SELECT, StageFiles
from zpd_ray.rundir.records import load_fit
from zpd_ray.rundir.selected import selection_directory
from zpd_ray.selection import looks_for_zone

SAME = 1e-9  # share of itself by which a score may differ from another and still count as equal (sort keys)


@dataclass(frozen=True)
class Standing:
    """An item at one stage, for one method. None: not known (yet), or it does not apply.

    measured: its row of ``schema.MEASUREMENT``; judged: b, b_sd, p, score; threshold: the lowest score that
    the budget bought at the stage, replay aside; rank: 0 is the best; why: in words.
    """

    stage: int
    method: str
    why: str
    measured: dict[str, Any] | None = None
    judged: dict[str, float] | None = None
    threshold: float | None = None
    rank: int | None = None


def item_of(run: Run, at: Found) -> dict[str, Any]:
    """The item (``schema.ITEM``)."""
    item: dict[str, Any] = run.store.read_table(f"{POOL}/{at.part}").slice(at.row, 1).to_pylist()[0]
    return item


def standing(run: Run, at: Found, stage: int, method: str) -> Standing:
    """How an item stood at a stage; what selection thought of it is computed again from the fit."""
    if at.part not in run.store.names(StageFiles(stage).measurements()):
        return Standing(stage, method, "not measured yet")
    answers = read_measured(run, stage, ANSWERS, at.part)
    measured = answers.slice(at.row, 1).to_pylist()[0]
    if measured["nll"] is None:
        return Standing(stage, method, f"could not be measured: {measured['error']}", measured)
    if not run.finished(stage, FIT):
        return Standing(stage, method, "measured; ability is not fitted yet", measured)
    order = selection_order(run, stage, item_keys(answers["item_id"]))
    table = judge(run, load_fit(run.store, stage), method, at.part, answers, order)
    judged = {name: float(value[0]) for name, value in table.slice(at.row, 1).to_pydict().items()}
    replayable = run.config.select.replay > 0 and bool(mastered(run, answers, table)[at.row])
    return _decided(run, at, Standing(stage, method, "", measured, judged), replayable)


def _decided(run: Run, at: Found, known: Standing, replayable: bool) -> Standing:
    """What selection made of an item that is measured and judged."""
    stage, method, measured, judged = known.stage, known.method, known.measured, known.judged
    assert measured is not None
    assert judged is not None
    directory = selection_directory(run, stage, method)
    if not run.store.exists(f"{directory}/{SELECT.closes}"):
        return replace(known, why="nothing is selected yet")
    known = replace(known, threshold=_threshold(run, f"{directory}/selected"))
    reason = _chosen(run, f"{directory}/chosen/{at.part}", at.row)
    if reason is not None:
        rank = _rank(run, f"{directory}/selected", measured["item_id"])
        return replace(known, rank=rank, why=_selected_because(run, method, reason, measured, judged))
    told = _left_out_because(run, at, stage, method, judged, known.threshold)
    return replace(known, why=told + ("; mastered, and not drawn for replay" if replayable else ""))


def _chosen(run: Run, name: str, row: int) -> str | None:
    """The reason for which a row of a part was selected."""
    table = run.store.read_table(name, ["row", "reason"])
    reason: str | None = next(iter(table.filter(pc.equal(table["row"], row))["reason"].to_pylist()), None)
    return reason


def _threshold(run: Run, directory: str) -> float | None:
    """The lowest score of those that were not replayed; None where there are none."""
    lowest = []
    for name in run.store.names(directory):
        rows = run.store.read_table(f"{directory}/{name}", ["score", "reason"])
        lowest.append(pc.min(rows.filter(pc.not_equal(rows["reason"], "replay"))["score"]).as_py())
    return min((score for score in lowest if score is not None), default=None)


def _rank(run: Run, directory: str, item_id: str) -> int | None:
    for name in run.store.names(directory):
        rows = run.store.read_table(f"{directory}/{name}", ["item_id", "rank"])
        at = pc.index(rows["item_id"], pa.scalar(item_id)).as_py()
        if at >= 0:
            rank: int = rows["rank"][at].as_py()
            return rank
    return None


def _selected_because(
    run: Run, method: str, reason: str, measured: dict[str, Any], judged: dict[str, float]
) -> str:
    told = f"p = {judged['p']:.2f}"
    if reason == "replay":
        return (
            f"selected for replay: mastered, {told}, {measured['successes']} of {measured['rollouts']} right"
        )
    if method != "zpd":
        return f"selected for its score; {told}, {_side(run, judged['p'])}"
    fewer = ", which held fewer than the budget" if reason == "nearest" else ""
    return f"selected: {told}, {_side(run, judged['p'])}{fewer}"


def _left_out_because(
    run: Run, at: Found, stage: int, method: str, judged: dict[str, float], threshold: float | None
) -> str:
    if not run.config.select.allow_trained:
        for earlier in range(stage):
            if at.row in run.chosen_rows(earlier, at.part):
                return f"trained on at stage {earlier}" if run.trains else f"selected at stage {earlier}"
    score = judged["score"]
    if score != score:  # NaN
        return f"{method} gives it no score (NaN)"
    if threshold is None:
        return f"score {score:.3g}; the whole budget went to replay"
    where = f"p = {judged['p']:.2f}, {_side(run, judged['p'])}; " if looks_for_zone(method) else ""
    if abs(score - threshold) <= SAME * abs(threshold):
        return f"{where}score {score:.3g} is the threshold, and a seeded hash of the ids decided among equals"
    return f"{where}score {score:.3g}, threshold {threshold:.3g}"


def _side(run: Run, p: float) -> str:
    """Where a p lies, seen from the zone."""
    low, high = zone_of(run.config.select.target_p)
    return "harder than the zone" if p < low else "easier than the zone" if p > high else "inside the zone"
