"""What each step does, with what goes in and what comes out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zpd_ray.at_work import at_work
from zpd_ray.errors import ZpdError
from zpd_ray.irt.flags import FLAGS
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.pipeline.fit.ability import fit_ability, followed_parts
from zpd_ray.pipeline.ingest.ingest import ingest
from zpd_ray.pipeline.measure.evaluate import evaluate_model
from zpd_ray.pipeline.measure.measure import measure_pool
from zpd_ray.pipeline.rounds.probes import choose_probes
from zpd_ray.pipeline.rounds.rounds import measure_in_rounds
from zpd_ray.pipeline.select.moved import moved_groups, tell_moved
from zpd_ray.pipeline.select.quotas import groups_for
from zpd_ray.pipeline.select.select import select_items
from zpd_ray.pipeline.train import adopt as adopting
from zpd_ray.pipeline.train import train as training
from zpd_ray.report.apart import write_apart
from zpd_ray.rundir.begin import record
from zpd_ray.rundir.groups import group_table
from zpd_ray.rundir.layout import (
    BASE,
    CONFIG,
    EVALUATE,
    METRICS,
    POOL,
    TRAIN,
    StageFiles,
)
from zpd_ray.rundir.records import Metrics, add_event, load_events, load_fit, load_metrics
from zpd_ray.selection.budget import check_anchors_left, check_buys_something, resolve_budget
from zpd_ray.selection.probes import most_probes
from zpd_ray.terminal import doing, say, warn

Details = dict[str, Any]  # what the event of a step tells
REPORTING = "report"  # its event


def measure(session: Session, stage: int) -> Details:
    """Pool, model of the stage -> NLL, responses and what the methods need, of every item.

    Or of some, where ``measure.scope`` says so.
    """
    return (measure_in_rounds if session.run.in_rounds(stage) else measure_pool)(session, stage)


def fit(session: Session, stage: int) -> Details:
    """Responses of all stages so far, NLLs of this one -> ability theta, calibration of difficulty b."""
    fit = fit_ability(session, stage)
    ability, last = fit.ability, fit.ability.stages[-1]
    gain = f", {last.gain:+.2f} +- {last.gain_se:.2f} since stage 0" if len(ability.stages) > 1 else ""
    say(f"stage {stage}: theta = {ability.theta:.2f} +- {ability.se:.2f} logits{gain}")
    if fit.groups is not None:
        say(f"stage {stage}: {fit.groups}")
    for flag in fit.told_flags(session.run.config.prompts_alone):
        if flag.startswith("sigma_"):
            say(f"  note: {FLAGS.get(flag, flag)}")
        else:  # theta is not to be trusted
            warn(f"stage {stage}: {FLAGS.get(flag, flag)}")
    told = {"theta": ability.theta, "theta_se": ability.se}
    if fit.probed is None:
        return told
    for part in fit.probed.drifted:
        warn(f"stage {stage}: {part.told}")
    return told | {"moved": fit.probed.moved, "drifted": [asdict(part) for part in fit.probed.drifted]}


def select(session: Session, stage: int) -> Details:
    """Measurements, fit, budget -> the items to train on, in order of score."""
    run, fit = session.run, load_fit(session.run.store, stage)
    if stage == 0:
        choose_probes(run, fit)  # before anything is trained on
    tell_moved(run, fit)
    for method in run.methods[1:]:
        for warning in select_items(run, fit, method, beside=True).warnings:
            warn(f"stage {stage}, {method}, which is not trained on: {warning}")
    chosen = select_items(run, fit, run.methods[0])
    say(
        f"stage {stage}: selected {chosen.zone} items of the zone (mean b {chosen.mean_b:.2f}, "
        f"mean p {chosen.mean_p:.2f}) and {chosen.replay} to replay; {chosen.tokens} tokens"
        + (f", {chosen.own} of the model's own responses" if run.config.train.target == "own" else "")
    )
    diverse = {name: getattr(chosen, name) for name in ("near_duplicates", "passed_over")}
    if any(diverse.values()):
        say(
            f"stage {stage}: but for diversity {chosen.near_duplicates} near duplicates and "
            f"{chosen.passed_over} items beyond their group's quota would be among them"
        )
    for warning in chosen.warnings:
        warn(f"stage {stage}: {warning}")
    return {"selected": chosen.selected, "tokens": chosen.tokens, **diverse}


def train(session: Session, stage: int) -> Details:
    """Selected items, model of the stage -> the model of the next stage."""
    task = training.prepare(session, stage)
    details = training.train(session, task)
    session.rest_after_training()
    return details


def adopt(session: Session, stage: int, result: Path) -> None:
    """A model that was trained elsewhere -> the model of the next stage, in place of ``train``."""
    with timed(session, "adopt", stage) as details:
        details |= adopting.adopt(session, stage, result)


def evaluate(session: Session, stage: int) -> Details:
    """Evaluation set, model of the next stage -> its accuracy; this closes the stage."""
    now = evaluate_model(session, session.run.model(stage + 1), StageFiles(stage).directory)
    _tell_of_a_fall(session, stage, now)
    return {}


def _tell_of_a_fall(session: Session, stage: int, now: Metrics) -> None:
    """Accuracy below that of the model before, where both are known."""
    store = session.run.store
    if stage == 0 and not store.exists(f"{BASE}/{METRICS}"):  # of steps that were taken one by one
        return
    before = load_metrics(store, stage - 1 if stage else None)
    if now.accuracy is not None and before.accuracy is not None and now.accuracy < before.accuracy:
        warn(
            f"stage {stage}: accuracy fell from {before.accuracy:.3f} to {now.accuracy:.3f}, of {now.items} "
            "items: a lower train.learning_rate, or more select.replay, may keep what was known"
        )


def report(session: Session, stage: int) -> None:
    """What there is after a stage -> report.html, unless the config wants none, or it was written before.

    No page is worth a run: what goes wrong is told.
    """
    run = session.run
    if not run.config.report or run.finished(stage + 1, EVALUATE):  # whose page tells of this stage, too
        return
    if any(event.step == REPORTING and event.stage == stage for event in load_events(run.store)):
        return
    try:
        with timed(session, REPORTING, stage):
            write_apart(run.store)
    except ZpdError as problem:
        warn(f"stage {stage}: {problem}; the run goes on, and `zpd-ray report {run.store.root}` tries again")


def begin_training(session: Session, stage: int) -> Callable[[], None]:
    """Prepare what ``train`` takes; the rest of the step, for another thread (nothing where finished)."""
    if session.run.finished(stage, TRAIN):
        return lambda: None
    task = training.prepare(session, stage)

    def finish() -> None:
        with timed(session, TRAIN.name, stage) as details:
            details |= training.train(session, task)

    return finish


def ingest_pool(session: Session) -> None:
    """Source files -> pool, evaluation set and quarantine."""
    run = session.run
    if not run.store.exists(CONFIG):
        # What a refused or killed attempt has read may come from another config: it is read again.
        with timed(session, "ingest"):
            ingest(run)
        if run.config.ability.groups:  # groups that there are not are refused before anything is measured
            group_table(run, run.store.names(POOL)[: followed_parts(run)])
        groups_for(run)  # likewise, and the next
        moved_groups(run)
    pool = run.store.read_json(f"{POOL}.json")
    # A budget that the pool cannot pay is refused before anything is measured.
    amount = resolve_budget(run.config.select.budget, pool["items"], pool["response_tokens"])
    check_anchors_left(amount, run.config.stages, pool["items"], pool["response_tokens"])
    most_probes(run.config.measure, pool["items"])  # which refuses a pool that is too small for them
    check_buys_something(amount, pool["shortest_response"])
    record(run)


def rehearse_training(session: Session) -> None:
    """Longest items, base model -> a training step that works, before anything is measured."""
    from zpd_ray.pipeline.train import rehearsal

    if rehearsal.is_due(session.run) and not session.run.finished(0, TRAIN):
        with timed(session, "rehearse") as details:
            details |= rehearsal.rehearse(session.run)


def evaluate_base(session: Session) -> None:
    """Evaluation set, base model -> its accuracy."""
    if not session.run.store.exists(f"{BASE}/{METRICS}"):
        with timed(session, EVALUATE.name):
            evaluate_model(session, session.run.model(0), BASE)


@contextmanager
def timed(session: Session, step: str, stage: int | None = None) -> Iterator[Details]:
    """An event for a step that ends well, with its seconds; the caller adds what it did."""
    started, details = time.perf_counter(), Details()
    doing(step if stage is None else f"stage {stage}: {step}")
    with at_work.step(step, stage):
        yield details
    add_event(session.run.store, step, stage, time.perf_counter() - started, **details)
