"""What a fit of a stage is made from, and what it says of items: counts in, calibration and ability out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zpd_ray import irt
from zpd_ray.ability import Ability, Standing
from zpd_ray.difficulty import (
    Scale,
    bin_of,
    feedback_difficulty,
    log_nll,
    standardise,
)
from zpd_ray.drift import Probed
from zpd_ray.grouping import GroupStanding, Profile
from zpd_ray.irt.pool.posterior import difficulty_posterior
from zpd_ray.irt.pool.residual import Residual
from zpd_ray.judging import Aim, Judged, judge_mixture, judge_normal
from zpd_ray.matching import expected_probability, probability_over, zpd_score

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

AIM = Aim()
CONVENTION = "logits; slope 1; mean b = 0 over the pool at stage 0; stages on one scale by the same items"


@dataclass(frozen=True)
class Statistics:
    """What the fit of a stage sees, in integers that add over parts.

    answers: items never trained on, counted by ``nll_bin``, ``options`` (0 where answers cannot be guessed),
    ``successes`` and ``trials`` of this stage, and by ``group`` where ability is told by group. history: all
    items of some parts by what they answered at every stage (``ability.count_history``); None of the other
    parts.
    """

    answers: irt.Counts
    history: irt.Counts | None

    @staticmethod
    def of(
        nll: Floats,
        options: Integers,
        successes: Integers,
        rollouts: Integers,
        history: irt.Counts | None = None,
        group: Integers | None = None,
    ) -> Statistics:
        """Count items: arrays of shape (n,), ``nll`` in nats per token; group: its number."""
        told = {} if group is None else {"group": group}
        answers = irt.Counts.of(
            nll_bin=bin_of(nll), options=options, successes=successes, trials=rollouts, **told
        )
        return Statistics(answers, history)

    @staticmethod
    def merge(parts: list[Statistics]) -> Statistics:
        """Sum over parts, in any order."""
        followed = [p.history for p in parts if p.history is not None]
        answers = irt.Counts.merge([p.answers for p in parts])
        return Statistics(answers, irt.Counts.merge(followed) if followed else None)


@dataclass(frozen=True)
class Calibration:
    """How difficulty follows from what a stage measured; everything in logits.

    b of an item = gamma (z - origin) + shift + residual, with z = (log NLL - location) / scale. Standard
    errors that do not exist are None. ``stage``: whose NLLs it is for. ``kind``: explanatory or feedback.
    ``gamma``, ``gamma_se``: slope and its standard error. ``sigma``, ``sigma_se``: sd of a normal residual
    and its standard error. ``location``, ``scale``: median and spread of log NLL over the pool at stage 0.
    ``origin``: mean z of the anchors. ``residual_nodes``, ``residual_weights``: the residual's distribution
    by the data, mean 0; empty where it is taken as normal. ``shift``: puts it on the scale of ability.
    ``feedback_strength``: lambda of the feedback calibration.
    """

    stage: int
    kind: str
    gamma: float
    gamma_se: float | None
    sigma: float
    sigma_se: float | None
    location: float
    scale: float
    origin: float
    residual_nodes: list[float]
    residual_weights: list[float]
    shift: float = 0.0
    feedback_strength: float = 0.0

    def z(self, nll: Floats) -> Floats:
        """Standardised log NLL; shape of ``nll`` (nats per token)."""
        return standardise(log_nll(nll), Scale(self.location, self.scale))

    def prior_mean(self, nll: Floats, ahead: Floats | None = None) -> Floats:
        """Mean of b by the NLL alone, less ``ahead`` (as of ``judge``): shape of ``nll``, logits."""
        mean = self.gamma * (self.z(nll) - self.origin) + self.shift
        return mean if ahead is None else mean - ahead  # only theta + ahead - b matters

    def judge(
        self,
        theta: float,
        nll: Floats,
        successes: Integers,
        rollouts: Integers,
        guess: Floats,
        aim: Aim = AIM,
        ahead: Floats | None = None,
    ) -> Judged:
        """What an item's own NLL and responses say of it; arguments and results of shape (n,).

        ahead: logits by which the model's ability on the item's group is above ``theta``.

        explanatory: by the posterior of b for a model of ability ``theta``; an item that was never answered
        keeps gamma (z - origin) and the residual. feedback: b = z + lambda (1 - 2 s/k), taken as known
        (sd 0).
        """
        if self.kind == "feedback":
            z = self.z(nll) - self.origin
            b = feedback_difficulty(z, successes, rollouts, self.feedback_strength) + self.shift
            return Judged(b, np.zeros_like(b), zpd_score(theta, b, 0.0, guess, *aim))
        prior_mean = self.prior_mean(nll, ahead)
        if not self.residual_nodes:
            judged = judge_normal(theta, prior_mean, self.sigma, successes, rollouts, guess, aim)
        else:
            residual = Residual(np.array(self.residual_nodes), np.array(self.residual_weights))
            judged = judge_mixture(theta, prior_mean, residual, successes, rollouts, guess, aim)
        return judged if ahead is None else judged._replace(b=judged.b + ahead)

    def expected(self, theta: float, nll: Floats, guess: Floats, ahead: Floats | None = None) -> Floats:
        """P(right) by the NLL alone, before a response of the item is seen: all arrays of shape (n,).

        The residual is integrated out (feedback: there is none). ahead: as of ``judge``.
        """
        prior_mean = self.prior_mean(nll, ahead)
        if not self.residual_nodes:
            return expected_probability(theta, prior_mean, self.sigma, guess)
        nodes, weights = np.array(self.residual_nodes), np.array(self.residual_weights)
        return probability_over(theta, prior_mean, nodes, weights, guess)


@dataclass(frozen=True)
class Fit:
    """One stage's ability and calibration, and how well they fit. ``fit.json`` holds these fields.

    stage: of the run, from 0; ability: of the model, at this stage and at those before; calibration: how
    difficulty follows from what the stage measured; loglik, grad_norm: log-likelihood of its responses, and
    norm of the gradient, which is near 0 at the maximum; n_items, n_responses, n_right: what it was fitted
    to; flags: warnings about it (irt.flags); convention: what the scale is.

    ``staleness``: stages of training between the model that was measured and the one that trains on what is
    selected. ``probed``: what probes say of items that were not measured; None where all were. ``groups``:
    ability by group of items; None where it is not asked for. gamma and sigma of the calibration are then
    those beside the groups; loglik, grad_norm and standard errors are without them.
    """

    stage: int
    ability: Ability
    calibration: Calibration
    loglik: float
    grad_norm: float
    n_items: int
    n_responses: int
    n_right: int
    flags: list[str]
    convention: str = CONVENTION
    staleness: int = 0
    probed: Probed | None = None
    groups: Profile | None = None

    def judge(
        self,
        nll: Floats,
        successes: Integers,
        rollouts: Integers,
        guess: Floats,
        aim: Aim = AIM,
        ahead: Floats | None = None,
    ) -> Judged:
        """``Calibration.judge`` for the model of this stage; ahead: of each item's group (``Profile``)."""
        return self.calibration.judge(self.ability.theta, nll, successes, rollouts, guess, aim, ahead)

    def difficulty(
        self,
        nll: Floats,
        successes: Integers,
        rollouts: Integers,
        guess: Floats,
        ahead: Floats | None = None,
    ) -> tuple[Floats, Floats]:
        """Posterior mean and sd of b (``judge``), without the cost of a score."""
        of, theta = self.calibration, self.ability.theta
        if of.kind == "feedback" or of.residual_nodes or ahead is not None:
            judged = self.judge(nll, successes, rollouts, guess, ahead=ahead)
            return judged.b, judged.b_sd
        return difficulty_posterior(theta, of.prior_mean(nll), of.sigma, successes, rollouts, guess)

    def told_flags(self, prompts_alone: bool = False) -> list[str]:
        """Flags that a reader must know of: those of ability, and of this stage's calibration.

        What one stage by itself does not show of sigma, the stages together may: only these are told of it.
        prompts_alone: NLLs are those of prompts, which need not be higher where items are harder.
        """
        untold = {"sigma_not_identified"} | ({"slope_not_positive"} if prompts_alone else set())
        own = [flag for flag in self.flags if flag not in untold]
        return list(dict.fromkeys([*self.ability.flags, *own]))

    def to_json(self) -> dict[str, Any]:
        """Plain values, no NaN."""
        values = asdict(self)
        return {k: v for k, v in values.items() if v is not None or k not in ("probed", "groups")}

    @staticmethod
    def from_json(values: dict[str, Any]) -> Fit:
        """The inverse of ``to_json``."""
        stages = [Standing(**standing) for standing in values["ability"]["stages"]]
        parts: dict[str, Any] = {
            "ability": Ability(**(values["ability"] | {"stages": stages})),
            "calibration": Calibration(**values["calibration"]),
            "probed": Probed.from_json(values["probed"]) if "probed" in values else None,
        }
        if "groups" in values:
            standings = [GroupStanding(**standing) for standing in values["groups"]["standings"]]
            parts["groups"] = Profile(values["groups"]["tau"], standings)
        return Fit(**(values | parts))
