"""One stage's fit: from integer counts of (NLL bin, options, successes, rollouts) to ability and difficulty.

Scale. Stage 0 sets it: log NLL is standardised to z by the pool's median and spread, and the mean difficulty
of the pool is 0. Later stages keep that standardisation and are linked by their *anchors*, the items never
trained on: their mean difficulty, weighted by the information p (1 - p) that they had at the stage before, is
what it was then (mean-mean linking, Kolen & Brennan 2014, Test Equating, section 6.2, with weights). What the
model has learnt then shows as a rise of theta, and an item whose NLL fell more than the anchors' has become
easier. Without the weights the link hangs on hopeless and mastered items, whose logits move with the slope
more than with the model (docs/decisions.md).

The paper (arXiv 2601.10986) does not say how stages share a scale; this is our choice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlog1py, xlogy

from zpd_ray import irt
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
from zpd_ray.errors import ZpdError
from zpd_ray.irt.pool.posterior import difficulty_posterior
from zpd_ray.matching import probability

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Slope of b on z before any data: one logit per standard deviation of log NLL, loosely held. It decides only
# where responses say nothing, as when all of them are wrong.
SLOPE_MEAN, SLOPE_SD = 1.0, 3.0
SIGMA_LOG_SD = 1.0
CONVENTION = "logits; slope 1; mean b = 0 over the pool at stage 0; later stages linked by untrained items"


@dataclass(frozen=True)
class Statistics:
    """What the fit of a stage sees of the anchors, in integers that add over parts.

    answers: counted by ``nll_bin``, ``options`` (0 where answers cannot be guessed), ``successes`` and
    ``trials``. links: the same items by their NLL bin at the stage before (``before``) and at this one
    (``now``); None at stage 0.
    """

    answers: irt.Counts
    links: irt.Counts | None = None

    @staticmethod
    def of(
        nll: Floats, options: Integers, successes: Integers, rollouts: Integers, before: Floats | None = None
    ) -> Statistics:
        """Count items: arrays of shape (n,), ``nll`` and ``before`` in nats per token.

        before: NLL at the stage before; None at stage 0.
        """
        now = bin_of(nll)
        answers = irt.Counts.of(nll_bin=now, options=options, successes=successes, trials=rollouts)
        links = None if before is None else irt.Counts.of(before=bin_of(before), now=now)
        return Statistics(answers, links)

    @staticmethod
    def merge(parts: list[Statistics]) -> Statistics:
        """Sum over parts, in any order."""
        links = [p.links for p in parts if p.links is not None]
        answers = irt.Counts.merge([p.answers for p in parts])
        return Statistics(answers, irt.Counts.merge(links) if links else None)


@dataclass(frozen=True)
class Ability:
    """theta of a model and its standard error, in logits."""

    theta: float
    se: float


@dataclass(frozen=True)
class Calibration:
    """How difficulty follows from what a stage measured; everything in logits.

    b of an item = gamma (z - origin) + shift + residual, residual sd ``sigma``, with
    z = (log NLL - location) / scale. ``stage``: whose NLLs it is for. Standard errors that do not exist are
    None. ``feedback_strength``: lambda of the feedback calibration.
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
    shift: float = 0.0
    feedback_strength: float = 0.0

    def z(self, nll: Floats) -> Floats:
        """Standardised log NLL; shape of ``nll`` (nats per token)."""
        return standardise(log_nll(nll), Scale(self.location, self.scale))

    def difficulty(
        self, theta: float, nll: Floats, successes: Integers, rollouts: Integers, guess: Floats
    ) -> tuple[Floats, Floats]:
        """Mean and sd of b given an item's own NLL and responses; arguments and results of shape (n,).

        explanatory: the posterior of b for a model of ability ``theta``; an item that was never answered
        keeps gamma (z - origin) and sigma. feedback: z + lambda (1 - 2 s/k), taken as known (sd 0).
        """
        z = self.z(nll)
        if self.kind == "feedback":
            b = feedback_difficulty(z - self.origin, successes, rollouts, self.feedback_strength) + self.shift
            return b, np.zeros_like(b)
        prior_mean = self.gamma * (z - self.origin) + self.shift
        return difficulty_posterior(theta, prior_mean, self.sigma, successes, rollouts, guess)

    def expected_difficulty(self, bins: Integers) -> Floats:
        """gamma (z - origin) + shift at the centre of NLL bins: b before an item's own responses."""
        z = standardise(log_nll_of_bin(bins), Scale(self.location, self.scale))
        return self.gamma * (z - self.origin) + self.shift


@dataclass(frozen=True)
class Fit:
    """One stage's ability and calibration, and how well they fit. ``fit.json`` holds these fields.

    ``staleness``: stages of training between the model that was measured and the one that trains on what is
    selected.
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

    def difficulty(
        self, nll: Floats, successes: Integers, rollouts: Integers, guess: Floats
    ) -> tuple[Floats, Floats]:
        """``Calibration.difficulty`` for the model of this stage."""
        return self.calibration.difficulty(self.ability.theta, nll, successes, rollouts, guess)

    def to_json(self) -> dict[str, Any]:
        """Plain values, no NaN."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> Fit:
        """The inverse of ``to_json``."""
        parts = {
            "ability": Ability(**values["ability"]),
            "calibration": Calibration(**values["calibration"]),
        }
        return Fit(**(values | parts))


def fit_stage(statistics: Statistics, config: AbilityConfig, stage: int, previous: Fit | None) -> Fit:
    """Fit a stage from the counts of its anchors, linked to the stage before.

    Raises ZpdError when there are no anchors.
    """
    answers = statistics.answers
    if answers.n_items == 0:
        raise ZpdError(
            f"stage {stage} has no measured item that was not trained on, so ability has nothing to stand "
            "on; lower select.budget or stages"
        )
    scale = _scale(answers, previous)
    z = standardise(log_nll_of_bin(answers["nll_bin"]), scale)
    origin = float(answers.freq @ z / answers.freq.sum())
    fit_kind = _feedback if config.calibration == "feedback" else _explanatory
    fit = fit_kind(answers, z, Standard(stage, scale, origin), config)
    if previous is None or statistics.links is None:
        return fit
    shift = _shift(statistics.links, previous, fit)
    return replace(
        fit,
        ability=replace(fit.ability, theta=fit.ability.theta + shift),
        calibration=replace(fit.calibration, shift=shift),
    )


@dataclass(frozen=True)
class Standard:
    """How a stage's log NLLs become z, and the mean z of its anchors."""

    stage: int
    scale: Scale
    origin: float

    def calibration(self, kind: str, **values: Any) -> Calibration:
        """A calibration on this standard, not yet linked to another stage."""
        known = {"location": self.scale.location, "scale": self.scale.scale, "origin": self.origin}
        return Calibration(stage=self.stage, kind=kind, **(known | values))


def _shift(links: irt.Counts, previous: Fit, fit: Fit) -> float:
    """What must be added to the new fit's difficulties for its anchors to keep their weighted mean."""
    before = previous.calibration.expected_difficulty(links["before"])
    p = probability(previous.ability.theta, before)
    weight = links.freq * p * (1.0 - p)
    # Where all anchors are so far from theta that their information underflows, they count alike.
    weight = weight if weight.sum() > 0 else links.freq.astype(np.float64)
    now = fit.calibration.expected_difficulty(links["now"])
    return float(weight @ (before - now) / weight.sum())


def _scale(answers: irt.Counts, previous: Fit | None) -> Scale:
    if previous is not None:
        return Scale(previous.calibration.location, previous.calibration.scale)
    return robust_scale(answers["nll_bin"], answers.freq)


def _explanatory(answers: irt.Counts, z: Floats, standard: Standard, config: AbilityConfig) -> Fit:
    """theta, gamma and sigma by marginal MAP, b integrated out (irt.fit_explanatory)."""
    prior = irt.Prior(
        theta_sd=config.theta_sd,
        gamma_mean=SLOPE_MEAN,
        gamma_sd=SLOPE_SD,
        sigma_median=config.sigma,
        sigma_log_sd=SIGMA_LOG_SD,
    )
    fit = irt.fit_explanatory(
        answers["successes"][None, :],
        answers["trials"][None, :],
        z[:, None],
        guess_floor(answers["options"]),
        freq=answers.freq,
        origin=np.array([standard.origin]),
        prior=prior,
    )
    slope = ["slope_not_positive"] if fit.gamma[0] <= 0 else []
    calibration = standard.calibration(
        "explanatory",
        gamma=float(fit.gamma[0]),
        gamma_se=_finite(fit.gamma_se[0]),
        sigma=float(fit.sigma),
        sigma_se=_finite(fit.sigma_se),
    )
    ability = Ability(float(fit.theta[0]), float(fit.theta_se[0]))
    flags = [*fit.flags, *slope]
    return _fit(answers, ability, calibration, float(fit.loglik), float(fit.grad_norm), flags)


def _feedback(answers: irt.Counts, z: Floats, standard: Standard, config: AbilityConfig) -> Fit:
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
    return _fit(answers, Ability(theta, float(found.se[0])), calibration, loglik, grad_norm, flags)


def _loglik(answers: irt.Counts, theta: float, b: Floats, guess: Floats) -> tuple[float, float]:
    """Log-likelihood at theta for known difficulties, and its derivative."""
    p = probability(theta, b, guess)
    right = answers.freq * answers["successes"]
    wrong = answers.freq * (answers["trials"] - answers["successes"])
    slope = (p - guess) * (1.0 - p) / (1.0 - guess)  # dp / dtheta
    loglik = xlogy(right, p).sum() + xlog1py(wrong, -p).sum()
    return float(loglik), float((slope * (right / p - wrong / (1.0 - p))).sum())


def _fit(
    answers: irt.Counts,
    ability: Ability,
    calibration: Calibration,
    loglik: float,
    grad_norm: float,
    flags: list[str],
) -> Fit:
    return Fit(
        calibration.stage,
        ability,
        calibration,
        loglik,
        grad_norm,
        n_items=answers.n_items,
        n_responses=int(answers.freq @ answers["trials"]),
        n_right=int(answers.freq @ answers["successes"]),
        flags=flags,
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
