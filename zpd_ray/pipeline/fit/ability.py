"""Fit a stage: tasks count the answers in each part, the central actor adds them up and fits."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray

from zpd_ray import irt
from zpd_ray.ability import HISTORY_ITEMS, count_history
from zpd_ray.calibration import Fit, Statistics
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster import parts
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.ray_folder import ray_logs
from zpd_ray.rundir import Run
from zpd_ray.rundir.groups import group_numbers, group_table
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
    followed = names[: followed_parts(run)]
    groups = _groups(run, followed, previous)
    for attempt in range(ATTEMPTS):
        fit_name = f"{run.store.root}/{stage}/{attempt}"
        ray.get(actor.begin.remote(fit_name))
        send = partial(_send_statistics, run, stage, actor, fit_name, followed, groups)
        sent = sum(1 for _row in parts.sums(names, send))
        if _all_arrived(actor, sent):
            break
    else:
        raise RuntimeError(f"the ability actor lost its statistics {ATTEMPTS} times; see {ray_logs()}")
    fit: Fit = ray.get(actor.fit.remote(run.config.ability, stage, previous, groups))
    _check_extreme(fit, run)
    fit = replace(fit, staleness=run.staleness(stage))
    save_fit(run.store, fit)
    return fit


def _groups(run: Run, followed: list[str], previous: Fit | None) -> list[str] | None:
    """The groups that are told apart, the same at all stages; None where they are not asked for."""
    if not run.config.ability.groups:
        return None
    told = None if previous is None else previous.groups
    return group_table(run, followed) if told is None else told.names


def _check_extreme(fit: Fit, run: Run) -> None:
    """Responses of one kind only say nothing about where the zone is."""
    if 0 < fit.n_right < fit.n_responses or run.config.ability.allow_extreme:
        return
    verdict, side = ("wrong", "below") if fit.n_right == 0 else ("right", "above")
    raise ZpdError(
        f"stage {fit.stage}: all {fit.n_responses} responses are {verdict}, so ability lies {side} every "
        "item and nothing shows where its zone is; expected some of both. Look at the responses in "
        f"{run.store.root}/{StageFiles(fit.stage).measurements()} and give another grader or pool, in a new "
        "output, or set ability.allow_extreme = true to select what is nearest by NLL"
    )


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


def _send_statistics(
    run: Run,
    stage: int,
    actor: Any,
    fit_name: str,
    followed: list[str],
    groups: list[str] | None,
    names: list[str],
) -> dict[str, Any]:
    """Send the statistics of a task's parts to the actor, not to the driver.

    Without waiting for it: a task that waits gives up its CPU, and Ray starts more workers in its place.
    """
    statistics = Statistics.merge(
        [part_statistics(run, stage, name, name in followed, groups) for name in names]
    )
    actor.observe.remote(fit_name, names[0], statistics)
    return {"items": statistics.answers.n_items}


def followed_parts(run: Run) -> int:
    """How many parts, from the first, are followed over the stages: items come to parts by a hash of id."""
    return -(-HISTORY_ITEMS // run.config.pool.items_per_part)


def part_statistics(
    run: Run, stage: int, name: str, followed: bool, groups: list[str] | None = None
) -> Statistics:
    """Counts over a part: answers of items never trained on and, if ``followed``, all items' histories."""
    now = _measured(run, stage, name, ["nll", "successes", "rollouts"])
    usable = pc.is_valid(now["nll"]).to_numpy() & ~run.trained_before(stage, name, now.num_rows)
    nll, successes, rollouts = (now[column].to_numpy()[usable] for column in now.column_names)
    options = run.options(name, now.num_rows)
    history = _history(run, stage, name, options) if followed else None
    group = None if groups is None else group_numbers(run, name, groups)[usable]
    return Statistics.of(nll, options[usable], successes, rollouts, history, group)


def _history(run: Run, stage: int, name: str, options: NDArray[np.int64]) -> irt.Counts:
    """What the items of a part that were measured at stage 0 have answered before they were trained on."""
    nll = _measured(run, 0, name, ["nll"])["nll"]
    valid, trained = pc.is_valid(nll).to_numpy(), np.zeros(len(nll), dtype=bool)
    answers = {}
    for earlier in range(stage + 1):
        if run.measured_anew(earlier):
            table = _measured(run, earlier, name, ["successes", "rollouts"])
            s, k = (pc.fill_null(table[column], 0).to_numpy() for column in table.column_names)
            answers[earlier] = (np.where(trained, 0, s)[valid], np.where(trained, 0, k)[valid])
        if earlier < stage:
            trained[run.chosen_rows(earlier, name)] = True
    return count_history(nll.to_numpy()[valid], options[valid], trained[valid], answers)


def _measured(run: Run, stage: int, name: str, columns: list[str]) -> pa.Table:
    return run.store.read_table(f"{StageFiles(stage).measurements()}/{name}", columns)
