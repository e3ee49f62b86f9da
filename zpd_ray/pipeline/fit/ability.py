"""Fit a stage: tasks count the answers in each part, the central actor adds them up and fits."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow.compute as pc
import ray

from zpd_ray.calibration import Fit, Statistics
from zpd_ray.pipeline.cluster import parts
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import POOL, StageFiles
from zpd_ray.rundir.records import load_fit, save_fit

# A restarted actor has lost its statistics; they are collected anew, so many times.
ATTEMPTS = 3
ARRIVAL_SECONDS = 60.0  # without a further task's arriving


def fit_ability(session: Session, stage: int) -> Fit:
    """Fit ``stage`` from its measurements; the result is also in ``stages/NN/fit.json``."""
    run, actor = session.run, session.ability_actor()
    previous = load_fit(run.store, stage - 1) if stage else None
    names = run.store.names(POOL)
    for attempt in range(ATTEMPTS):
        fit_name = f"{run.store.root}/{stage}/{attempt}"
        ray.get(actor.begin.remote(fit_name))
        send = partial(_send_statistics, run, stage, actor, fit_name)
        sent = sum(1 for _row in parts.sums(names, send))
        if _all_arrived(actor, sent):
            break
    else:
        raise RuntimeError(f"the ability actor lost its statistics {ATTEMPTS} times; see the Ray logs")
    fit: Fit = ray.get(actor.fit.remote(run.config.ability, stage, previous))
    fit = replace(fit, staleness=run.staleness(stage))
    save_fit(run.store, fit)
    return fit


def _all_arrived(actor: Any, sent: int) -> bool:
    """Whether the statistics of all tasks have reached the actor, waiting for those under way."""
    arrived, deadline = -1, 0.0
    while (now := ray.get(actor.observed.remote())) < sent:
        if now > arrived:
            arrived, deadline = now, time.monotonic() + ARRIVAL_SECONDS
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _send_statistics(run: Run, stage: int, actor: Any, fit_name: str, names: list[str]) -> dict[str, Any]:
    """Send the statistics of a task's parts to the actor, not to the driver.

    Without waiting for it: a task that waits gives up its CPU, and Ray starts more workers in its place.
    """
    statistics = Statistics.merge([part_statistics(run, stage, name) for name in names])
    actor.observe.remote(fit_name, names[0], statistics)
    return {"items": statistics.answers.n_items}


def part_statistics(run: Run, stage: int, name: str) -> Statistics:
    """Counts over the anchors of a part: measured now and at the stage before, never trained on."""
    columns = ["nll", "successes", "rollouts"]
    now = run.store.read_table(f"{StageFiles(stage).measurements()}/{name}", columns)
    anchors = pc.is_valid(now["nll"]).to_numpy() & ~run.trained_before(stage, name, now.num_rows)
    before = None
    if stage:
        earlier = f"{StageFiles(stage - 1).measurements()}/{name}"
        before = run.store.read_table(earlier, ["nll"])["nll"]
        anchors &= pc.is_valid(before).to_numpy()
    nll, successes, rollouts = (now[column].to_numpy()[anchors] for column in columns)
    options = run.options(name, now.num_rows)[anchors]
    return Statistics.of(
        nll, options, successes, rollouts, None if before is None else before.to_numpy()[anchors]
    )
