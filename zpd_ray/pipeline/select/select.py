"""Select a stage's training items: the exact top of the budget by score, in constant memory.

Parts are scored one by one, and their keys passed over as often as the search needs (``search``); only
histograms, and the few rows around a threshold, come to the driver.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from zpd_ray import schema
from zpd_ray.calibration import Fit
from zpd_ray.errors import ZpdError
from zpd_ray.matching import zone_of
from zpd_ray.pipeline.cluster import parts
from zpd_ray.pipeline.select.few import Integers
from zpd_ray.pipeline.select.near import without_near_duplicates
from zpd_ray.pipeline.select.quotas import Quotas, groups_for, with_quotas
from zpd_ray.pipeline.select.scoring import Among, Ranked, Scoring
from zpd_ray.pipeline.select.search import top_of
from zpd_ray.pipeline.select.selected import (
    ITEMS_PER_FILE,
    Beyond,
    Files,
    reasons,
    summarise,
    with_own,
    write_selected,
)
from zpd_ray.rundir import Run
from zpd_ray.rundir.judging import JUDGED
from zpd_ray.rundir.layout import POOL, StageFiles
from zpd_ray.rundir.records import Selection, save_selection
from zpd_ray.selection import looks_for_zone
from zpd_ray.selection.budget import Amount, replay_share, resolve_budget
from zpd_ray.selection.counts import Counts, count
from zpd_ray.selection.top import (
    DIGITS,
    NOTHING,
    SORTABLE_ROWS,
    Bought,
    Prefix,
    Starts,
    Threshold,
    Top,
    file_starts,
)

OF_ITEM = ["item_id", "group", "prompt_tokens", "response_tokens"]  # that a selection tells of an item
LEFTOVERS = ("scored", "selected", "chosen", "near")  # of an attempt that was killed, with other values
DRAWN_TOLD = 0.1  # share of a selection that scores did not decide, from which a reader is told


def select_items(run: Run, fit: Fit, method: str, beside: bool = False) -> Selection:
    """Choose by a method, and write ``selected``, ``chosen`` and, last, selection.json.

    beside: into stages/NN/beside/METHOD, else into the stage's own directory. Raises ZpdError when nothing
    can be chosen.
    """
    pool = run.store.read_json(f"{POOL}.json")
    amount = resolve_budget(run.config.select.budget, pool["items"], pool["response_tokens"])
    replay_budget = replay_share(amount, run.config.select.replay)
    scoring = _scoring(run, fit, method, beside, amount.unit, replay_budget > 0)
    for leftover in LEFTOVERS:
        run.store.remove(f"{scoring.directory}/{leftover}")
    small = pool["items"] <= SORTABLE_ROWS
    scored = _score(scoring, "replay" if scoring.replayed else "zone")
    replay = _find(scoring, "replay", replay_budget, small, scored.first)
    first = None if scoring.replayed else scored.first  # replayed items leave the zone
    scoring = replace(scoring, replay=replay.top.threshold)
    zone = _zone(scoring, amount.value - replay.top.weight, small, first)
    if zone.found.top.rows + replay.top.rows == 0:
        raise ZpdError(
            f"stage {fit.stage} has nothing to select: every measured item was trained on before, got the "
            f"score NaN from {method}, or none fits the budget of {amount.value} {amount.unit}; use fewer "
            "stages, another budget, select.allow_trained, or another method"
        )
    warn = partial(_warnings, run, method, amount, zone, replay.top)
    after_zone = Starts(replay.starts.keys, replay.starts.rows + zone.found.top.rows)
    sums = _write(zone.scoring, zone.found.top.threshold, Files(zone.found.starts, after_zone))
    quotas = zone.quotas.by_name if zone.quotas else {}
    selection = summarise(sums, amount.value, amount.unit, _beyond(zone, scored), quotas, warn)
    run.store.remove(scoring.scratch)
    save_selection(run.store, scoring.directory, selection)
    return selection


def _scoring(run: Run, fit: Fit, method: str, beside: bool, unit: str, replayed: bool) -> Scoring:
    directory = StageFiles(fit.stage).selection(method if beside else None)
    only = not beside and run.only_measured(fit.stage, method)
    among: Among = "measured" if only else "known"
    return Scoring(run, fit, method, directory, unit, replayed, among=among, groups=groups_for(run))


@dataclass(frozen=True)
class Scored:
    """What the pass that scores finds. first: histogram of the first digit of the keys for a reason.

    left_out, unanswered: as of ``records.Selection``.
    """

    first: Counts
    left_out: int
    unanswered: int

    @staticmethod
    def add(found: list[Scored]) -> Scored:
        """Over parts."""
        first = Counts.add(each.first for each in found)
        return Scored(first, sum(each.left_out for each in found), sum(each.unanswered for each in found))


def _score(scoring: Scoring, reason: str) -> Scored:
    """Score all parts, and count what needs no threshold. reason: what is searched first."""

    def of_part(name: str) -> Scored:
        ranked = scoring.ranked(name, reason)
        first = count([Prefix()], ranked.keys, ranked.weight)
        return Scored(first, scoring.left_out(name), scoring.unanswered(name))

    return parts.total(scoring.run.store.names(POOL), of_part, Scored.add)


@dataclass(frozen=True)
class Found:
    """What a budget buys for a reason, and where the files of it begin."""

    top: Top
    starts: Starts


@dataclass(frozen=True)
class Zone:
    """The zone's share of a budget. scoring: with what diversity leaves out; by_score, without_repeats: up to
    which item the best would go without any of that, and without near duplicates alone."""

    scoring: Scoring
    found: Found
    by_score: Threshold
    without_repeats: Threshold
    quotas: Quotas | None


def _zone(scoring: Scoring, budget: int, small: bool, first: Counts | None) -> Zone:
    """first: histogram of the keys of the whole zone, where it is known."""
    diverse = scoring.run.config.select.diverse
    by_score = without_repeats = NOTHING  # of no use where nothing is left out
    if diverse.near_duplicates is not None:
        by_score = top_of(scoring, "zone", budget, small, first)[0].threshold
        scoring, first = without_near_duplicates(scoring, small), None
    if diverse.quota != "none":
        without_repeats = top_of(scoring, "zone", budget, small, first)[0].threshold
        first = None
    scoring, quotas = with_quotas(scoring, budget, small)
    return Zone(scoring, _find(scoring, "zone", budget, small, first), by_score, without_repeats, quotas)


def _beyond(zone: Zone, scored: Scored) -> Beyond:
    """What a selection does not show, counted over the pool."""
    near_duplicates, passed_over = _for_diversity(zone).tolist()
    bought = [zone.found.top.bought] if zone.quotas is None else zone.quotas.tops.bought
    return Beyond(
        left_out=scored.left_out,
        unanswered=scored.unanswered,
        tied=sum(each.tied for each in bought),
        drawn=sum(each.drawn for each in bought),
        near_duplicates=near_duplicates,
        passed_over=passed_over,
    )


def _for_diversity(zone: Zone) -> Integers:
    """How many items are left out as near duplicates, and how many since no quota had room for them: (2,)."""
    scoring = zone.scoring
    if not scoring.thinned and scoring.quotas is None:
        return np.zeros(2, dtype=np.int64)

    def of_part(name: str) -> Integers:
        passed_over = scoring.passed_over(name, zone.without_repeats)
        return np.array([scoring.repeated(name, zone.by_score), passed_over], dtype=np.int64)

    return parts.total(scoring.run.store.names(POOL), of_part, parts.added)


def _find(scoring: Scoring, reason: str, budget: int, small: bool, first: Counts | None) -> Found:
    if budget == 0:
        none = np.zeros(0, dtype=np.int64)
        nothing = Top(Bought(NOTHING, 0, 0), np.zeros(DIGITS, dtype=np.int64))
        return Found(nothing, Starts(none.astype(np.uint64), none))
    top, counts_of = top_of(scoring, reason, budget, small, first)
    return Found(top, file_starts(top, ITEMS_PER_FILE, counts_of))


def _write(scoring: Scoring, zone: Threshold, files: Files) -> list[dict[str, Any]]:
    """Each part writes which of its items were chosen; where they lie goes to files in order of rank.

    Returns the sums of each file. No text is read, and none is shuffled.
    """
    store = scoring.run.store
    rows = parts.tables(store.names(POOL), partial(_chosen_rows, scoring, zone, files))
    write = partial(write_selected, store, f"{scoring.directory}/selected", files)
    grouped = rows.groupby("file", num_partitions=files.count)
    return list(grouped.map_groups(write, batch_format="pyarrow").iter_rows())


def _chosen_rows(scoring: Scoring, zone: Threshold, files: Files, name: str) -> pa.Table:
    chosen = {"zone": scoring.chosen(name, "zone", zone)}
    if scoring.replayed:
        chosen["replay"] = scoring.chosen(name, "replay", scoring.replay)
    items, store = schema.ITEM.empty_table().select(OF_ITEM), scoring.run.store
    if any(len(ranked.rows) for ranked in chosen.values()):
        items = store.read_table(f"{POOL}/{name}", OF_ITEM)
    table = pa.concat_tables(
        _with_scores(scoring, name, items, ranked, reason, files) for reason, ranked in chosen.items()
    )
    store.write_table(f"{scoring.directory}/chosen/{name}", table.select(["item_id", "reason", "row"]))
    return table


def _with_scores(
    scoring: Scoring, name: str, items: pa.Table, ranked: Ranked, reason: str, files: Files
) -> pa.Table:
    items = with_own(scoring.run, scoring.fit.stage, name, items.take(ranked.rows), ranked.rows)
    judged = scoring.judged(name, ranked.rows)
    told = (
        reasons(scoring.looks_for_zone, judged["p"].to_numpy(), scoring.run.config.select.target_p)
        if reason == "zone"
        else [reason] * items.num_rows
    )
    columns: dict[str, Any] = {
        **{column: judged[column] for column in JUDGED},
        "reason": pa.array(told, pa.string()),
        "key": pa.array(ranked.keys),
        "file": pa.array(files.of_keys(ranked.keys, reason)),
        "part": pa.array([name] * items.num_rows, pa.string()),
        "row": pa.array(ranked.rows),
    }
    for column, values in columns.items():
        items = items.append_column(column, values)
    return items


def _warnings(
    run: Run, method: str, amount: Amount, zone: Zone, replay: Top, selection: Selection
) -> list[str]:
    """What a reader of the selection must know; nothing when the budget was spent as asked."""
    found = []
    spent, quotas = zone.found.top.weight + replay.weight, zone.quotas
    # A token budget ends at the first item that does not fit; a per cent of it may stay unspent.
    if spent < (1.0 if amount.unit == "items" else 0.99) * amount.value:
        unspent = quotas is not None and quotas.unspent
        ends = "spent: each group's ends where its next item does not fit" if unspent else "left to select"
        found.append(f"only {spent} of {amount.value} {amount.unit} were {ends}")
    if quotas is not None:
        found += quotas.told
    if selection.passed_over:
        found.append(
            f"quotas: {selection.passed_over} items with a better score than others were passed over"
        )
    asked = replay_share(amount, run.config.select.replay)
    if replay.weight < 0.99 * asked:
        found.append(
            f"replay: {replay.weight} of {asked} {amount.unit} were mastered; the zone took the rest"
        )
    if selection.tied > selection.drawn >= DRAWN_TOLD * max(1, selection.zone):
        found.append(
            f"{selection.tied} items share the lowest score that was taken by {method}, and a seeded hash of "
            f"their ids drew {selection.drawn} of them"
        )
    if selection.left_out:
        found.append(f"{selection.left_out} items have no score by {method}, and could not be selected")
    if selection.unanswered:
        found.append(
            f"{selection.unanswered} items have no right response of the model's own to train on, and could "
            f"not be selected (pool.reference = {run.config.pool.reference!r}, train.target = 'own')"
        )
    low, high = zone_of(run.config.select.target_p)
    if looks_for_zone(method) and selection.outside_zone:
        found.append(
            f"the zone is small: {selection.outside_zone} of {selection.zone} items have p below "
            f"{low:.2g} or above {high:.2g}, the nearest there were"
        )
    return found
