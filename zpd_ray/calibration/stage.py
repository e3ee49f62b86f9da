"""Fit a stage: its own calibration, put on the scale of ability."""

from __future__ import annotations

from dataclasses import replace

from zpd_ray import grouping, irt
from zpd_ray.ability import ability_prior, estimate
from zpd_ray.calibration.fit import Fit, Statistics
from zpd_ray.calibration.own import Standard, by_group, explanatory, feedback
from zpd_ray.config import AbilityConfig
from zpd_ray.difficulty import (
    Scale,
    log_nll_of_bin,
    robust_scale,
    standardise,
)
from zpd_ray.errors import ZpdError


def fit_stage(
    statistics: Statistics,
    config: AbilityConfig,
    stage: int,
    previous: Fit | None,
    groups: list[str] | None = None,
    of_prompts: bool = False,
) -> Fit:
    """Fit a stage from its counts; ``previous`` gives the standardisation of log NLL.

    groups: names of the groups that answers are counted by, all other items coming last. of_prompts: NLLs
    are those of prompts alone, of which nothing is expected. Raises ZpdError when there are no items that
    were never trained on.
    """
    answers, history = grouping.without_groups(statistics.answers), statistics.history
    if answers.n_items == 0 or history is None or not _answered(history):
        raise ZpdError(
            f"stage {stage} has no measured item that was not trained on, so ability has nothing to stand "
            "on; lower select.budget or stages"
        )
    scale = _scale(answers, previous)
    ability, prior = estimate(history, scale, config, of_prompts), ability_prior(config, of_prompts)
    z = standardise(log_nll_of_bin(answers["nll_bin"]), scale)
    origin = float(answers.freq @ z / answers.freq.sum())
    standard, told = Standard(stage, scale, origin), None
    if config.calibration == "feedback":
        own = feedback(answers, z, standard, config)
    elif groups is None:
        own = explanatory(answers, z, standard, prior)
    else:
        before = None if previous is None else previous.groups
        own, found = by_group(answers, statistics.answers, standard, prior, len(groups) + 1, before)
        told = found.profile(ability.theta, groups)
    return Fit(
        stage=stage,
        ability=ability,
        calibration=replace(own.calibration, shift=ability.theta - own.theta),
        loglik=own.loglik,
        grad_norm=own.grad_norm,
        n_items=answers.n_items,
        n_responses=int(answers.freq @ answers["trials"]),
        n_right=int(answers.freq @ answers["successes"]),
        flags=own.flags,
        groups=told,
    )


def _answered(history: irt.Counts) -> bool:
    """Whether some item that is followed has a response at every stage."""
    return all((history.freq @ history[name]) > 0 for name in history.columns if name[0] == "k")


def _scale(answers: irt.Counts, previous: Fit | None) -> Scale:
    if previous is not None:
        return Scale(previous.calibration.location, previous.calibration.scale)
    return robust_scale(answers["nll_bin"], answers.freq)
