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
from zpd_ray.rundir.groups import group_names
from zpd_ray.rundir.judging import judge, last_measured, mastered, selection_order
from zpd_ray.rundir.layout import ANSWERS, FIT, MEASURE, POOL, SELECT, StageFiles
from zpd_ray.rundir.records import load_fit, load_selection
from zpd_ray.rundir.selected import selection_directory
from zpd_ray.selection import looks_for_zone

SAME = 1e-9  # share of itself by which a score may differ from another and still count as equal (sort keys)


@dataclass(frozen=True)
class Standing:
    """An item at one stage, for one method. None: not known (yet), or it does not apply.

    measured: its row of ``schema.MEASUREMENT``, the last where the stage has not measured it; judged: b,
    b_sd, p, score; threshold: the lowest score that the budget bought at the stage, replay aside; rank: 0
    is the best; last_measured: the stage that last measured it; why: in words.
    """

    stage: int
    method: str
    why: str
    measured: dict[str, Any] | None = None
    judged: dict[str, float] | None = None
    threshold: float | None = None
    rank: int | None = None
    last_measured: int | None = None


def item_of(run: Run, at: Found) -> dict[str, Any]:
    """The item (``schema.ITEM``)."""
    item: dict[str, Any] = run.store.read_table(f"{POOL}/{at.part}").slice(at.row, 1).to_pylist()[0]
    return item


def standing(run: Run, at: Found, stage: int, method: str) -> Standing:
    """How an item stood at a stage; what selection thought of it is computed again from the fit."""
    if not _is_measured(run, at.part, stage):
        return Standing(stage, method, "not measured yet")
    known = last_measured(run, stage, ANSWERS, at.part)
    answers, last = known.answers, int(known.stage[at.row])
    measured = answers.slice(at.row, 1).to_pylist()[0]
    if measured["nll"] is None:
        told = f"could not be measured: {measured['error']}"
        return Standing(stage, method, told, measured, last_measured=last)
    if not run.finished(stage, FIT):
        told = "measured; ability is not fitted yet"
        return Standing(stage, method, told, measured, last_measured=last)
    order = selection_order(run, stage, item_keys(answers["item_id"]))
    table = judge(run, load_fit(run.store, stage), method, at.part, known, order)
    judged = {name: float(value[0]) for name, value in table.slice(at.row, 1).to_pydict().items()}
    replayable = run.config.select.replay > 0 and bool(mastered(run, answers, table)[at.row])
    replayable &= at.row not in run.probe_rows(at.part)
    known_so_far = Standing(stage, method, "", measured, judged, last_measured=last)
    found = _decided(run, at, known_so_far, replayable)
    if last == stage:
        return found
    return replace(found, why=f"{found.why}; last measured at stage {last}, b and p are predicted from it")


def _is_measured(run: Run, part: str, stage: int) -> bool:
    """Whether all that a stage measures of a part is there."""
    if run.in_rounds(stage):
        return run.finished(stage, MEASURE)
    return part in run.store.names(StageFiles(stage).measurements())


def _decided(run: Run, at: Found, known: Standing, replayable: bool) -> Standing:
    """What selection made of an item that is measured and judged."""
    stage, method, measured, judged = known.stage, known.method, known.measured, known.judged
    assert measured is not None
    assert judged is not None
    directory = selection_directory(run, stage, method)
    if not run.store.exists(f"{directory}/{SELECT.closes}"):
        return replace(known, why="nothing is selected yet")
    known = replace(known, threshold=_threshold(run, at, directory))
    reason = _chosen(run, f"{directory}/chosen/{at.part}", at.row)
    if reason is not None:
        rank = _rank(run, f"{directory}/selected", measured["item_id"])
        return replace(known, rank=rank, why=_selected_because(run, method, reason, measured, judged))
    told = _left_out_because(run, at, known, judged, f"{directory}/near/{at.part}")
    return replace(known, why=told + ("; mastered, and not drawn for replay" if replayable else ""))


def _chosen(run: Run, name: str, row: int) -> str | None:
    """The reason for which a row of a part was selected."""
    table = run.store.read_table(name, ["row", "reason"])
    reason: str | None = next(iter(table.filter(pc.equal(table["row"], row))["reason"].to_pylist()), None)
    return reason


def _threshold(run: Run, at: Found, directory: str) -> float | None:
    """The lowest score of those that were not replayed, with quotas of those that share the item's.

    None where there are none.
    """
    quotas, lowest = load_selection(run.store, directory).quotas, []
    own = _quota_of(pa.array([str(group_names(run, at.part)[at.row])]), quotas)[0]
    for name in run.store.names(f"{directory}/selected"):
        rows = run.store.read_table(f"{directory}/selected/{name}", ["score", "reason", "group"])
        rows = rows.filter(pc.not_equal(rows["reason"], "replay"))
        rows = rows.filter(pc.equal(_quota_of(rows["group"], quotas), own))
        lowest.append(pc.min(rows["score"]).as_py())
    return min((score for score in lowest if score is not None), default=None)


def _quota_of(groups: Any, quotas: dict[str, int]) -> Any:
    """The names of the quotas that items of these groups share: "" for all where there are no quotas."""
    return pc.if_else(pc.is_in(groups, pa.array(list(quotas), pa.string())), groups, "")


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


def _left_out_because(run: Run, at: Found, known: Standing, judged: dict[str, float], near: str) -> str:
    stage, method, threshold = known.stage, known.method, known.threshold
    if at.row in run.probe_rows(at.part):
        return "a probe: asked at each stage, never trained on"
    if not run.config.select.allow_trained:
        for earlier in range(stage):
            if at.row in run.chosen_rows(earlier, at.part):
                return f"trained on at stage {earlier}" if run.trains else f"selected at stage {earlier}"
    score = judged["score"]
    if score != score:  # NaN
        return f"{method} gives it no score (NaN)"
    if run.config.only_own and known.measured is not None and known.measured["own"] is None:
        return f"score {score:.3g}; no right response of the model's own to train on"
    if run.only_measured(stage, method) and known.last_measured != stage:
        return f"predicted score {score:.3g}, not among the best, which were measured again"
    most = run.config.select.diverse.near_duplicates
    if most is not None and run.store.exists(near) and at.row in run.store.read_table(near)["row"].to_numpy():
        better = "a better item nearly repeats it" if most == 1 else f"{most} better items nearly repeat it"
        return f"score {score:.3g}; {better}"
    shared = run.config.select.diverse.quota != "none"
    if threshold is None:
        spent = "the quota of its group buys nothing" if shared else "the whole budget went to replay"
        return f"score {score:.3g}; {spent}"
    where = f"p = {judged['p']:.2f}, {_side(run, judged['p'])}; " if looks_for_zone(method) else ""
    if abs(score - threshold) <= SAME * abs(threshold):
        return f"{where}score {score:.3g} is the threshold, and a seeded hash of the ids decided among equals"
    return f"{where}score {score:.3g}, threshold {threshold:.3g}{' by the quota of its group' * shared}"


def _side(run: Run, p: float) -> str:
    """Where a p lies, seen from the zone."""
    low, high = zone_of(run.config.select.target_p)
    return "harder than the zone" if p < low else "easier than the zone" if p > high else "inside the zone"
