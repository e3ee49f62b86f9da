"""Fit a stage: tasks count the answers in each part and add up, the central actor fits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray

from zpd_ray import irt
from zpd_ray.ability import HISTORY_ITEMS, count_history
from zpd_ray.calibration import Fit, Statistics
from zpd_ray.drift import Probed
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster import parts
from zpd_ray.rundir import Run
from zpd_ray.rundir.groups import group_numbers, group_table
from zpd_ray.rundir.judging import read_measured
from zpd_ray.rundir.layout import ANSWERS, MEASURE, POOL, StageFiles
from zpd_ray.rundir.records import load_closing, load_fit, load_round_fit, save_fit

if TYPE_CHECKING:  # Ray Data comes with it, whose import takes each process of a task a second of a core
    from zpd_ray.pipeline.cluster.session import Session


def fit_ability(session: Session, stage: int) -> Fit:
    """Fit ``stage`` from its measurements; the result is also in ``stages/NN/fit.json``."""
    run = session.run
    names = run.store.names(POOL)
    if run.in_rounds(stage):
        measured = {*run.store.names(StageFiles(stage).measurements()), *names[: followed_parts(run)]}
        names = sorted(measured)
    fit = fit_parts(session, stage, names)
    _check_extreme(fit, run)
    fit = replace(fit, staleness=run.staleness(stage), probed=_probed(run, stage))
    save_fit(run.store, fit)
    return fit


def _probed(run: Run, stage: int) -> Probed | None:
    """What the stage has learnt of its probes, with how many items were measured again for it."""
    if not run.in_rounds(stage):
        return None
    closed = load_closing(run.store, stage, MEASURE)
    fit = load_round_fit(run.store, stage, closed["probed"])
    assert fit is not None
    assert fit.probed is not None
    again = {each["what"]: each["items"] for each in closed["rounds"]}
    drifted = [replace(part, items=again.get(str(part), 0)) for part in fit.probed.drifted]
    return replace(fit.probed, drifted=drifted)


def fit_parts(session: Session, stage: int, names: list[str]) -> Fit:
    """Fit ``stage`` from what was measured of some parts."""
    run, actor = session.run, session.ability_actor()
    previous = load_fit(run.store, stage - 1) if stage else None
    followed = run.store.names(POOL)[: followed_parts(run)]
    groups = _groups(run, followed, previous)

    def of_part(name: str) -> Statistics:
        return part_statistics(run, stage, name, name in followed, groups)

    statistics, config = parts.total(names, of_part, Statistics.merge), run.config
    fit: Fit = ray.get(
        actor.fit.remote(statistics, config.ability, stage, previous, groups, of_prompts=config.prompts_alone)
    )
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
    instead = (
        "draw among items that are all alike" if run.config.prompts_alone else "select what is nearest by NLL"
    )
    raise ZpdError(
        f"stage {fit.stage}: all {fit.n_responses} responses are {verdict}, so ability lies {side} every "
        "item and nothing shows where its zone is; expected some of both. Look at the responses in "
        f"{run.store.root}/{StageFiles(fit.stage).measurements()} and give another grader or pool, in a new "
        f"output, or set ability.allow_extreme = true to {instead}"
    )


def followed_parts(run: Run) -> int:
    """How many parts, from the first, are followed over the stages: items come to parts by a hash of id."""
    return -(-HISTORY_ITEMS // run.config.pool.items_per_part)


def part_statistics(
    run: Run, stage: int, name: str, followed: bool, groups: list[str] | None = None
) -> Statistics:
    """Counts over a part: answers of items never trained on and, if ``followed``, all items' histories."""
    now = read_measured(run, stage, ANSWERS, name, ["nll", "successes", "rollouts"])
    usable = pc.is_valid(now["nll"]).to_numpy() & ~run.trained_before(stage, name, now.num_rows)
    nll, successes, rollouts = (now[column].to_numpy()[usable] for column in now.column_names)
    options = run.options(name, now.num_rows)
    history = _history(run, stage, name, options) if followed else None
    group = None if groups is None else group_numbers(run, name, groups)[usable]
    return Statistics.of(nll, options[usable], successes, rollouts, history, group)


def _history(run: Run, stage: int, name: str, options: NDArray[np.int64]) -> irt.Counts:
    """What the items of a part that were measured at stage 0 have answered before they were trained on.

    Of stages that measure in rounds only what probes have answered: they were chosen by what stage 0 shows,
    which is in the likelihood, and other items by NLLs that are not. Anchors are then probes that all have
    asked.
    """
    nll = read_measured(run, 0, ANSWERS, name, ["nll"])["nll"]
    valid, trained = pc.is_valid(nll).to_numpy(), np.zeros(len(nll), dtype=bool)
    away, probes = np.zeros(len(nll), dtype=bool), run.probe_rows(name)
    answers = {}
    for earlier in range(stage + 1):
        if run.measured_anew(earlier):
            table = read_measured(run, earlier, ANSWERS, name, ["successes", "rollouts"])
            s, k = (pc.fill_null(table[column], 0).to_numpy() for column in table.column_names)
            if run.in_rounds(earlier):
                probe = np.isin(np.arange(len(nll)), probes)
                s, k = np.where(probe, s, 0), np.where(probe, k, 0)
                away |= k == 0
            answers[earlier] = (np.where(trained, 0, s)[valid], np.where(trained, 0, k)[valid])
        if earlier < stage:
            trained[run.chosen_rows(earlier, name)] = True
    return count_history(nll.to_numpy()[valid], options[valid], (trained | away)[valid], answers)
