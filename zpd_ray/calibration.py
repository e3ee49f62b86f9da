"""One stage's fit: how difficulty follows from what the stage measured, and the ability of its model.

Two models on one scale. *Ability* follows the same items over all stages (zpd_ray.ability). *Calibration*
ranks the pool at one stage, and takes the NLL of that stage, which says far more of the stage's responses
than an older one does: log NLL is standardised to z by the pool's median and spread at stage 0,
b = gamma (z - origin) + residual, with gamma, the residual's distribution and theta from the stage's own
responses; it is normal where they do not tell its shape, else as they tell it (irt.pool.residual). A shift
then puts the stage's theta where ability is; p depends on theta - b alone, so that no ranking hangs on it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlog1py, xlogy

from zpd_ray import grouping, irt
from zpd_ray.ability import Ability, Standing, ability_prior, estimate
from zpd_ray.config import AbilityConfig
from zpd_ray.difficulty import (
    Scale,
    bin_of,
    feedback_difficulty,
    guess_floor,
    log_nll,
    log_nll_of_bin,
    robust_scale,
    standardise,
)
from zpd_ray.drift import Probed
from zpd_ray.errors import ZpdError
from zpd_ray.grouping import Groups, GroupStanding, Profile
from zpd_ray.irt.pool.posterior import difficulty_posterior
from zpd_ray.irt.pool.residual import STEP, Residual, fit_residual
from zpd_ray.judging import Aim, Judged, judge_mixture, judge_normal
from zpd_ray.matching import expected_probability, probability, probability_over, zpd_score

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

    @property
    def told_flags(self) -> list[str]:
        """Flags that a reader must know of: those of ability, and of this stage's calibration.

        What one stage by itself does not show of sigma, the stages together may: only these are told of it.
        """
        own = [flag for flag in self.flags if flag != "sigma_not_identified"]
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


def fit_stage(
    statistics: Statistics,
    config: AbilityConfig,
    stage: int,
    previous: Fit | None,
    groups: list[str] | None = None,
) -> Fit:
    """Fit a stage from its counts; ``previous`` gives the standardisation of log NLL.

    groups: names of the groups that answers are counted by, all other items coming last. Raises ZpdError when
    there are no items that were never trained on.
    """
    answers, history = grouping.without_groups(statistics.answers), statistics.history
    if answers.n_items == 0 or history is None or not _answered(history):
        raise ZpdError(
            f"stage {stage} has no measured item that was not trained on, so ability has nothing to stand "
            "on; lower select.budget or stages"
        )
    scale = _scale(answers, previous)
    ability = estimate(history, scale, config)
    z = standardise(log_nll_of_bin(answers["nll_bin"]), scale)
    origin = float(answers.freq @ z / answers.freq.sum())
    standard, told = Standard(stage, scale, origin), None
    if config.calibration == "feedback":
        own = _feedback(answers, z, standard, config)
    elif groups is None:
        own = _explanatory(answers, z, standard, config)
    else:
        before = None if previous is None else previous.groups
        own, found = _by_group(answers, statistics.answers, standard, config, len(groups) + 1, before)
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


class Own(NamedTuple):
    """A stage's calibration before it is put on the scale of ability, and the theta that goes with it."""

    theta: float
    calibration: Calibration
    loglik: float
    grad_norm: float
    flags: list[str]


@dataclass(frozen=True)
class Standard:
    """How a stage's log NLLs become z, and the mean z of its anchors."""

    stage: int
    scale: Scale
    origin: float

    def calibration(self, kind: str, **values: Any) -> Calibration:
        """A calibration on this standard, not yet on the scale of ability."""
        known = {"location": self.scale.location, "scale": self.scale.scale, "origin": self.origin}
        normal: dict[str, Any] = {"residual_nodes": [], "residual_weights": []}
        return Calibration(stage=self.stage, kind=kind, **(known | normal | values))


def _scale(answers: irt.Counts, previous: Fit | None) -> Scale:
    if previous is not None:
        return Scale(previous.calibration.location, previous.calibration.scale)
    return robust_scale(answers["nll_bin"], answers.freq)


def _explanatory(answers: irt.Counts, z: Floats, standard: Standard, config: AbilityConfig) -> Own:
    """theta, gamma and sigma by marginal MAP, b integrated out (irt.fit_explanatory); then the shape."""
    return _shaped(_normal(_fit(answers, z, standard, config), standard), answers, z)


def _by_group(
    pooled: irt.Counts,
    answers: irt.Counts,
    standard: Standard,
    config: AbilityConfig,
    n_groups: int,
    before: Profile | None,
) -> tuple[Own, Groups]:
    """The same with an ability for each group; pooled, answers: the same items without and by group.

    before: of the stage before, whose sizes of groups are kept.
    """
    fit = _fit(pooled, _z_of(pooled, standard), standard, config)
    own, z = _normal(fit, standard), _z_of(answers, standard)
    guess, prior = guess_floor(answers["options"]), ability_prior(config)
    sizes = None if before is None else before.sizes
    found = grouping.estimate(fit, answers, z, guess, n_groups, prior, sizes)
    if found.tau == 0.0:
        return _shaped(own, pooled, _z_of(pooled, standard)), found
    calibration = replace(own.calibration, gamma=found.gamma, sigma=found.sigma)
    flags = own.flags if found.settled else [*own.flags, "groups_not_converged"]
    own = own._replace(theta=found.theta, calibration=calibration, flags=flags)
    return _shaped(own, answers, z, found.ahead[answers["group"]]), found


def _z_of(answers: irt.Counts, standard: Standard) -> Floats:
    return standardise(log_nll_of_bin(answers["nll_bin"]), standard.scale)


def _fit(answers: irt.Counts, z: Floats, standard: Standard, config: AbilityConfig) -> irt.ExplanatoryFit:
    return irt.fit_explanatory(
        answers["successes"][None, :],
        answers["trials"][None, :],
        z[:, None],
        guess_floor(answers["options"]),
        freq=answers.freq,
        origin=np.array([standard.origin]),
        prior=ability_prior(config),
    )


def _normal(fit: irt.ExplanatoryFit, standard: Standard) -> Own:
    """The calibration that a fit says, with a normal residual."""
    slope = ["slope_not_positive"] if fit.gamma[0] <= 0 else []
    calibration = standard.calibration(
        "explanatory",
        gamma=float(fit.gamma[0]),
        gamma_se=_finite(fit.gamma_se[0]),
        sigma=float(fit.sigma),
        sigma_se=_finite(fit.sigma_se),
    )
    flags = [*fit.flags, *slope]
    return Own(float(fit.theta[0]), calibration, float(fit.loglik), float(fit.grad_norm), flags)


def _shaped(own: Own, answers: irt.Counts, z: Floats, ahead: Floats | None = None) -> Own:
    """The same with the residual's distribution by the data, where they tell it; its mean goes to theta and
    leaves it 0. ahead: of the group of each cell."""
    calibration = own.calibration
    # A flagged fit says that sigma, or theta, is not to be told from the responses: much less the shape.
    if set(own.flags) - {"slope_not_positive"} or calibration.sigma < STEP:
        return own
    prior_mean = calibration.gamma * (z - calibration.origin)
    residual = fit_residual(
        own.theta,
        prior_mean if ahead is None else prior_mean - ahead,
        calibration.sigma,
        answers["successes"],
        answers["trials"],
        guess_floor(answers["options"]),
        answers.freq,
    )
    shaped = replace(
        calibration,
        residual_nodes=(residual.nodes - residual.mean).tolist(),
        residual_weights=residual.weights.tolist(),
    )
    return own._replace(theta=own.theta - residual.mean, calibration=shaped)


def _feedback(answers: irt.Counts, z: Floats, standard: Standard, config: AbilityConfig) -> Own:
    """theta by MAP with difficulties fixed at z + lambda (1 - 2 s/k) (irt.ability)."""
    strength, successes, trials = config.feedback_strength, answers["successes"], answers["trials"]
    b = feedback_difficulty(z - standard.origin, successes, trials, strength)
    guess = guess_floor(answers["options"])
    found = irt.ability(
        successes[None, :],
        np.ones_like(b),
        b,
        guess,
        estimator="map",
        trials=trials[None, :],
        freq=answers.freq,
        theta_sd=config.theta_sd,
    )
    theta = float(found.theta[0])
    loglik, slope = _loglik(answers, theta, b, guess)
    grad_norm = abs(slope - theta / config.theta_sd**2)
    calibration = standard.calibration(
        "feedback", gamma=1.0, gamma_se=None, sigma=0.0, sigma_se=None, feedback_strength=strength
    )
    flags = [flag for flag in found.flags if flag]
    return Own(theta, calibration, loglik, grad_norm, flags)


def _loglik(answers: irt.Counts, theta: float, b: Floats, guess: Floats) -> tuple[float, float]:
    """Log-likelihood at theta for known difficulties, and its derivative."""
    p = probability(theta, b, guess)
    right = answers.freq * answers["successes"]
    wrong = answers.freq * (answers["trials"] - answers["successes"])
    slope = (p - guess) * (1.0 - p) / (1.0 - guess)  # dp / dtheta
    loglik = xlogy(right, p).sum() + xlog1py(wrong, -p).sum()
    return float(loglik), float((slope * (right / p - wrong / (1.0 - p))).sum())


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
