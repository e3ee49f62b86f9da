"""Ability of the model at every stage so far, on one scale: concurrent calibration over stages.

An item's difficulty b is its own and stays: b = gamma (z_0 - origin) + residual, with z_0 from the NLL at
stage 0 and mean b = 0 over the pool. theta_0 .. theta_t are estimated jointly from all responses that items
gave before they were trained on (irt.stages.concurrent). NLLs of later stages say nothing here: linking by
them mixed what items lost with what the model gained, and on real stages pointed the wrong way
(docs/decisions.md).

The paper (arXiv 2601.10986) does not say how stages share a scale; this is our choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from zpd_ray import irt
from zpd_ray.config import AbilityConfig
from zpd_ray.difficulty import Scale, bin_of, guess_floor, log_nll_of_bin, standardise
from zpd_ray.irt.stages.concurrent import StagesFit, fit_stages
from zpd_ray.matching import expected_probability

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Slope of b on z before any data: one logit per standard deviation of log NLL, loosely held. It decides only
# where responses say nothing, as when all of them are wrong. Of a prompt's own NLL nothing is expected: 0.
SLOPE_MEAN, SLOPE_SD = 1.0, 3.0
SIGMA_LOG_SD = 1.0
# Items whose history is followed, drawn with their part of the pool: theta is then known to 0.02 logits, more
# than the model is true to, and what the actor holds stays bounded whatever the pool and the stages.
HISTORY_ITEMS = 50_000


@dataclass(frozen=True)
class Standing:
    """Where the model stood at a stage, in logits on the scale of the fit that says so.

    stage: whose measurement it is; theta, se: ability of the model then, and its standard error; gain,
    gain_se: theta less that of the first stage, and its standard error. right: share of right responses at
    this stage among the items that were never trained on before the fit's stage (the anchors); expected: what
    the fit expects of items with their NLLs, difficulties held. The two part where selection took items by
    what they had answered. None where no anchor answered.
    """

    stage: int
    theta: float
    se: float
    gain: float
    gain_se: float
    right: float | None
    expected: float | None


@dataclass(frozen=True)
class Ability:
    """theta of a model and its standard error, in logits, and where it stood at the stages before.

    theta, se: of the model that was measured last; stages: of all so far. gamma: slope of difficulties by the
    NLL of stage 0; sigma, log_sigma_se: their spread around that, and the standard error of its logarithm.
    anchors: items followed that were never trained on. flags: as of irt.fit_explanatory.
    """

    theta: float
    se: float
    stages: list[Standing]
    gamma: float
    sigma: float
    log_sigma_se: float
    anchors: int
    flags: list[str] = field(default_factory=list)

    def at(self, stage: int) -> Standing:
        """Where the model stood that a stage has measured; at times it is the one of the stage before."""
        return max((s for s in self.stages if s.stage <= stage), key=lambda s: s.stage)


def ability_prior(config: AbilityConfig, of_prompts: bool = False) -> irt.Prior:
    """Prior of theta, gamma and sigma, of the stage's own calibration as well.

    of_prompts: NLLs are those of prompts alone, and may be higher or lower where items are harder.
    """
    return irt.Prior(
        theta_sd=config.theta_sd,
        gamma_mean=0.0 if of_prompts else SLOPE_MEAN,
        gamma_sd=SLOPE_SD,
        sigma_median=config.sigma,
        sigma_log_sd=SIGMA_LOG_SD,
    )


def count_history(
    nll: Floats,
    options: Integers,
    trained: NDArray[np.bool_],
    answers: Mapping[int, tuple[Integers, Integers]],
) -> irt.Counts:
    """Items counted by all that they answered: arrays of shape (n,).

    nll: at stage 0, nats per token. trained: whether an item is no anchor: it was trained on before the stage
    that is fitted, or not every stage has asked it.
    answers: by stage, successes and rollouts, no rollouts where an item was not asked or had been trained on.
    """
    columns = {
        f"{name}{stage}": values
        for stage, pair in answers.items()
        for name, values in zip(("s", "k"), pair, strict=True)
    }
    return irt.Counts.of(nll_bin=bin_of(nll), options=options, trained=trained.astype(np.int64), **columns)


def estimate(history: irt.Counts, scale: Scale, config: AbilityConfig, of_prompts: bool = False) -> Ability:
    """theta of every stage in ``history`` (``count_history``), jointly. of_prompts: as of the prior."""
    stages = sorted(int(name[1:]) for name in history.columns if name[0] == "s")
    successes, trials = (np.stack([history[f"{name}{stage}"] for stage in stages]) for name in "sk")
    z = standardise(log_nll_of_bin(history["nll_bin"]), scale)
    origin = float(history.freq @ z / history.freq.sum())
    guess = guess_floor(history["options"])
    fit = fit_stages(
        successes,
        trials,
        z[:, None],
        guess,
        freq=history.freq,
        origin=np.array([origin]),
        prior=ability_prior(config, of_prompts),
    )
    anchors = history.freq * (history["trained"] == 0)
    prior_mean = fit.gamma[0] * (z - origin)
    shares = [
        _shares(theta, prior_mean, fit.sigma, guess, anchors, s, k)
        for theta, s, k in zip(fit.theta, successes, trials, strict=True)
    ]
    return _ability(fit, stages, shares, int(anchors.sum()))


def _shares(
    theta: float, b: Floats, sigma: float, guess: Floats, freq: Integers, s: Integers, k: Integers
) -> tuple[float | None, float | None]:
    """Share of right responses, and the share that is expected of the same items."""
    asked = freq * k
    if asked.sum() == 0:
        return None, None
    p = expected_probability(theta, b, sigma, guess)
    return float(freq @ s / asked.sum()), float(asked @ p / asked.sum())


def _ability(
    fit: StagesFit,
    stages: Sequence[int],
    shares: Sequence[tuple[float | None, float | None]],
    anchors: int,
) -> Ability:
    standings = [
        Standing(
            stage=stage,
            theta=float(fit.theta[row]),
            se=float(fit.theta_se[row]),
            gain=float(fit.gain[row]),
            gain_se=float(fit.gain_se[row]),
            right=shares[row][0],
            expected=shares[row][1],
        )
        for row, stage in enumerate(stages)
    ]
    last = standings[-1]
    return Ability(
        theta=last.theta,
        se=last.se,
        stages=standings,
        gamma=float(fit.gamma[0]),
        sigma=fit.sigma,
        log_sigma_se=fit.log_sigma_se,
        anchors=anchors,
        flags=list(fit.flags),
    )
