"""Measure a stage in rounds: probes until theta is known, what has drifted, and the best by prediction.

Probes tell the ability of now, how far items move on their own, and which part of the pool does not answer as
predicted. In scope ``zone`` the items of the best predicted score follow, and the stage selects among what it
has measured; in scope ``probe`` it selects by prediction, and the best of a part that has drifted are
measured again, within ``MOST_MEASURED``. What a round asks follows from files alone, so that a killed run
goes on to the same bytes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from zpd_ray import measures
from zpd_ray.calibration import Fit
from zpd_ray.drift import ALL, look_at
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.pipeline.fit.ability import fit_parts, followed_parts
from zpd_ray.pipeline.measure.measure import measure
from zpd_ray.pipeline.rounds.gather import RowsOf, gather, put_back
from zpd_ray.pipeline.rounds.probes import asked
from zpd_ray.pipeline.select.near import without_near_duplicates
from zpd_ray.pipeline.select.quotas import groups_for, with_quotas
from zpd_ray.pipeline.select.scoring import Rows, Scoring
from zpd_ray.pipeline.select.search import top_of
from zpd_ray.registry import label
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import ANSWERS, MEASURE, POOL, PROBES, StageFiles
from zpd_ray.rundir.records import load_round_fit, save_round_fit
from zpd_ray.selection.budget import Amount, replay_share, resolve_budget
from zpd_ray.selection.probes import FIRST_PROBES, MOST_MEASURED
from zpd_ray.selection.top import SORTABLE_ROWS
from zpd_ray.terminal import say

CANDIDATES = "candidates"

Round = dict[str, Any]  # round.json: what was asked, how many items, totals by measure


def measure_in_rounds(session: Session, stage: int) -> dict[str, Any]:
    """What a stage needs to know of the pool; the totals of ``answers``, with scope and rounds.

    Writes stages/NN/rounds/, stages/NN/measurements/MEASURE/ (``row`` and columns, of parts of which
    something was measured) and, last, measured.json: totals by measure, rounds, the last round of probes.
    """
    run, scope = session.run, session.run.config.measure.scope
    fit, rounds = _ask_probes(session, stage)
    probed = len(rounds) - 1
    if scope == "zone":  # what is selected is measured anyway, also of a part that has drifted
        rounds += _ask_candidates(session, fit, len(rounds))
    else:
        _ask_drifted(session, fit, rounds)
    totals: dict[str, Counter[str]] = {name: Counter() for name in run.measures}
    for each in rounds:
        for name, counts in each["measures"].items():
            totals[name].update(counts)
    told = [{"what": each["what"], "items": each["items"]} for each in rounds]
    found = {"scope": scope, "rounds": told, "probed": probed}
    run.store.write_json(StageFiles(stage).closing(MEASURE), {**totals, **found})
    asked_of = ", ".join(f"{each['items']} ({each['what']})" for each in told)
    say(f"stage {stage}: measured of {run.store.read_json(f'{POOL}.json')['items']} items {asked_of}")
    return {**totals[ANSWERS], "scope": scope, "rounds": told}


def _ask_probes(session: Session, stage: int) -> tuple[Fit, list[Round]]:
    """Rounds of probes until theta is known well enough; the fit by them.

    And until a drift of a part would show, as far as the probes that there are can show it.
    """
    run, rounds, done = session.run, list[Round](), 0
    how, have = run.config.measure, run.store.count_rows(PROBES)
    while True:
        first, done = done, min(have, max(FIRST_PROBES, 2 * done))
        names = sorted(set(run.store.read_table(PROBES)["part"].slice(first, done - first).to_pylist()))
        rows_of = partial(_rows_between, run, first, done)
        number = len(rounds)
        rounds.append(_ask(session, stage, number, "probes", names, rows_of, done - first, [ANSWERS]))
        fit = load_round_fit(run.store, stage, number) or _look(session, stage, number, done, have)
        assert fit.probed is not None
        if done == have or (fit.ability.se <= how.theta_se and not fit.probed.unsure):
            return fit, rounds


def _rows_between(run: Run, first: int, end: int, name: str) -> Rows:
    """Rows of a part that are probes, from the ``first`` in their order to that before ``end``."""
    return np.setdiff1d(run.probe_rows(name, end), run.probe_rows(name, first))


def _look(session: Session, stage: int, number: int, done: int, have: int) -> Fit:
    """The fit by the probes that were asked so far, and what they say of the others."""
    run = session.run
    names = run.store.names(POOL)[: followed_parts(run)]
    fit = fit_parts(session, stage, names)
    ability = fit.ability
    fit = replace(fit, probed=look_at(asked(run, fit, done), ability.theta, ability.se, have))
    save_round_fit(run.store, number, fit)
    return fit


def _ask_candidates(session: Session, fit: Fit, number: int) -> list[Round]:
    """The best by prediction; where a part has drifted, half of them as if it had not.

    A shift is a mean: where training has taught some items of a part and not the others, those that the mean
    brings into the zone may be the others, and measuring them would find few there. How far items differ is
    estimated, too, but one response each hardly tells it.
    """
    assert fit.probed is not None
    amount = _candidates(session.run)
    half = amount // 2
    if not fit.probed.drifted or half == 0:
        return [_ask_best(session, fit, number, CANDIDATES)]
    unmoved = replace(fit, probed=replace(fit.probed, drifted=[]))
    first = _ask_best(session, fit, number, CANDIDATES, most=amount - half)
    return [first, _ask_best(session, unmoved, number + 1, f"{CANDIDATES} without the drift", most=half)]


def _candidates(run: Run) -> int:
    """What is measured beyond probes in scope zone, in the unit of the budget."""
    amount, _ = _budget(run)
    fresh = amount.value - replay_share(amount, run.config.select.replay)
    return int(run.config.measure.candidates * fresh)


def _ask_drifted(session: Session, fit: Fit, rounds: list[Round]) -> None:
    """Add a round for each part that has drifted; they share what is left of ``MOST_MEASURED``."""
    run = session.run
    amount, whole = _budget(run)
    assert fit.probed is not None
    for at, part in enumerate(fit.probed.drifted):
        spent = sum(each["measures"].get(ANSWERS, {}).get(amount.unit, 0) for each in rounds)
        most = (int(MOST_MEASURED * whole) - spent) // (len(fit.probed.drifted) - at)
        if most > 0:
            within = None if part.kind == ALL else at
            rounds.append(_ask_best(session, fit, len(rounds), str(part), within, most))


def _ask_best(
    session: Session, fit: Fit, number: int, what: str, within: int | None = None, most: int | None = None
) -> Round:
    """The items of the best predicted score, of a part that has drifted (its place) or (None) of the pool.

    ``measure.candidates`` times as many as the budget buys for the zone, and not above ``most``; what the
    stage has measured is not among them.
    """
    run, directory = session.run, StageFiles(fit.stage).round(number)
    amount, _ = _budget(run)
    budget = _candidates(run)
    among: dict[str, Any] = {"among": "not measured", "within": within, "groups": groups_for(run)}
    scoring = Scoring(run, fit, run.methods[0], directory, amount.unit, False, **among)
    rows_of, total = None, 0
    if not run.store.exists(f"{directory}/items.json"):
        for leftover in (scoring.scratch, scoring.near):  # of an attempt that was killed
            run.store.remove(leftover)
        few = run.store.read_json(f"{POOL}.json")["items"] <= SORTABLE_ROWS
        budget = budget if most is None else min(budget, most)
        scoring = without_near_duplicates(scoring, few)
        scoring, _ = with_quotas(scoring, budget, few)  # each group has candidates by its quota
        top, _ = top_of(scoring, "zone", budget, few)
        rows_of, total = partial(_chosen, scoring, top.threshold), top.rows
    done = _ask(session, fit.stage, number, what, run.store.names(POOL), rows_of, total, run.measures)
    for leftover in (scoring.scratch, scoring.near):
        run.store.remove(leftover)
    return done


def _budget(run: Run) -> tuple[Amount, int]:
    """What a stage may train on, and the whole pool in the same unit."""
    pool = run.store.read_json(f"{POOL}.json")
    amount = resolve_budget(run.config.select.budget, pool["items"], pool["response_tokens"])
    return amount, pool["items"] if amount.unit == "items" else pool["response_tokens"]


def _chosen(scoring: Scoring, threshold: Any, name: str) -> Rows:
    return scoring.chosen(name, "zone", threshold).rows


def _ask(
    session: Session,
    stage: int,
    number: int,
    what: str,
    names: list[str],
    rows_of: RowsOf | None,
    total: int,
    asked_for: list[str],
) -> Round:
    """A round: gather (``rows_of`` None: done before), measure, put back; passed over where it is closed."""
    run, directory = session.run, StageFiles(stage).round(number)
    closing = f"{directory}/round.json"
    if run.store.exists(closing):
        found: Round = run.store.read_json(closing)
        return found
    if not run.store.exists(f"{directory}/items.json"):
        assert rows_of is not None
        gather(run, directory, names, rows_of, total)
    items, totals = f"{directory}/items", {}
    count = run.store.read_json(f"{items}.json")["items"]
    for name in asked_for if count else ():
        model = measures.load(name, run.config).model(run.model(stage - run.staleness(stage)))
        totals[name] = measure(session, name, model, items, f"{directory}/{label(name)}")
    put_back(run, stage, directory, [*totals])
    done = {"what": what, "items": count, "measures": totals}
    run.store.write_json(closing, done)
    return done
