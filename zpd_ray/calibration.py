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
    feedback_difficulty,
    log_nll,
    log_nll_of_bin,
    robust_scale,
    standardise,
)
from zpd_ray.errors import ZpdError
from zpd_ray.irt.pool.posterior import smooth_posterior
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
    """What the fit of a stage sees, in integers that add over parts.

    counts: cells of the anchors; ``groups`` is the number of options, 0 where answers cannot be guessed.
    links: the same items by ``bins`` = NLL bin at the stage before, ``groups`` = NLL bin now; None at
    stage 0.
    """

    counts: irt.Counts
    links: irt.Counts | None = None

    @staticmethod
    def merge(parts: list[Statistics]) -> Statistics:
        """Sum over parts, in any order."""
        links = [p.links for p in parts if p.links is not None]
        counts = irt.Counts.merge([p.counts for p in parts])
        return Statistics(counts, irt.Counts.merge(links) if links else None)


@dataclass(frozen=True)
class Fit:
    """Ability and calibration of one stage; everything in logits. ``fit.json`` holds these fields.

    b of an item = gamma (z - origin) + shift + residual, residual sd ``sigma``, with
    z = (log NLL - location) / scale. ``theta`` and its standard error are on that
    scale. Standard errors that do not exist are None. ``staleness``: stages of training between the model
    that was measured and the one that trains on what is selected.
    """

    stage: int
    calibration: str
    theta: float
    theta_se: float
    gamma: float
    gamma_se: float | None
    sigma: float
    sigma_se: float | None
    location: float
    scale: float
    origin: float
    shift: float
    feedback_strength: float
    loglik: float
    grad_norm: float
    n_items: int
    n_responses: int
    n_right: int
    convention: str
    flags: list[str]
    staleness: int = 0

    def z(self, nll: Floats) -> Floats:
        """Standardised log NLL; shape of ``nll`` (nats per token)."""
        return standardise(log_nll(nll), Scale(self.location, self.scale))

    def difficulty(
        self, nll: Floats, successes: Integers, rollouts: Integers, guess: Floats
    ) -> tuple[Floats, Floats]:
        """Mean and sd of b given an item's own NLL and responses; arguments and results of shape (n,).

        explanatory: the posterior of b; an item that was never answered keeps gamma (z - origin) and sigma.
        feedback: z + lambda (1 - 2 s/k), taken as known (sd 0).
        """
        z = self.z(nll)
        if self.calibration == "feedback":
            b = feedback_difficulty(z - self.origin, successes, rollouts, self.feedback_strength) + self.shift
            return b, np.zeros_like(b)
        prior_mean = self.gamma * (z - self.origin) + self.shift
        return smooth_posterior(self.theta, prior_mean, self.sigma, successes, rollouts, guess)

    def expected_difficulty(self, bins: Integers) -> Floats:
        """gamma (z - origin) + shift at the centre of NLL bins: b before an item's own responses."""
        z = standardise(log_nll_of_bin(bins), Scale(self.location, self.scale))
        return self.gamma * (z - self.origin) + self.shift

    def to_json(self) -> dict[str, Any]:
        """Plain values, no NaN."""
        return asdict(self)


def fit_stage(statistics: Statistics, config: AbilityConfig, stage: int, previous: Fit | None) -> Fit:
    """Fit a stage from the counts of its anchors, linked to the stage before.

    Raises ZpdError when there are no anchors.
    """
    counts = statistics.counts
    if counts.n_items == 0:
        raise ZpdError(
            f"stage {stage} has no measured item that was not trained on, so ability has nothing to stand "
            "on; lower select.budget or stages"
        )
    scale = _scale(counts, previous)
    z = standardise(log_nll_of_bin(counts.bins), scale)
    origin = float(counts.freq @ z / counts.freq.sum())
    fit = (_feedback if config.calibration == "feedback" else _explanatory)(counts, z, origin, config)
    fit = replace(fit, stage=stage, location=scale.location, scale=scale.scale)
    if previous is None or statistics.links is None:
        return fit
    shift = _shift(statistics.links, previous, fit)
    return replace(fit, theta=fit.theta + shift, shift=shift)


def _shift(links: irt.Counts, previous: Fit, fit: Fit) -> float:
    """What must be added to the new fit's difficulties for its anchors to keep their weighted mean."""
    before = previous.expected_difficulty(links.bins)
    p = probability(previous.theta, before)
    weight = links.freq * p * (1.0 - p)
    # Where all anchors are so far from theta that their information underflows, they count alike.
    weight = weight if weight.sum() > 0 else links.freq.astype(np.float64)
    return float(weight @ (before - fit.expected_difficulty(links.groups)) / weight.sum())


def _scale(counts: irt.Counts, previous: Fit | None) -> Scale:
    if previous is not None:
        return Scale(previous.location, previous.scale)
    return robust_scale(counts.bins, counts.freq)


def _guess(counts: irt.Counts) -> Floats:
    """Guessing floor of each cell: 1 / options, 0 where there are none."""
    options = counts.groups.astype(np.float64)
    return np.divide(1.0, options, out=np.zeros_like(options), where=options > 0)


def _explanatory(counts: irt.Counts, z: Floats, origin: float, config: AbilityConfig) -> Fit:
    """theta, gamma and sigma by marginal MAP, b integrated out (irt.fit_explanatory)."""
    prior = irt.Prior(
        theta_sd=config.theta_sd,
        gamma_mean=SLOPE_MEAN,
        gamma_sd=SLOPE_SD,
        sigma_median=config.sigma,
        sigma_log_sd=SIGMA_LOG_SD,
    )
    fit = irt.fit_explanatory(
        counts.successes[None, :],
        counts.trials[None, :],
        z[:, None],
        _guess(counts),
        freq=counts.freq,
        origin=np.array([origin]),
        prior=prior,
    )
    slope = ["slope_not_positive"] if fit.gamma[0] <= 0 else []
    return _fit(
        counts,
        calibration="explanatory",
        theta=float(fit.theta[0]),
        theta_se=float(fit.theta_se[0]),
        gamma=float(fit.gamma[0]),
        gamma_se=_finite(fit.gamma_se[0]),
        sigma=float(fit.sigma),
        sigma_se=_finite(fit.sigma_se),
        origin=origin,
        loglik=float(fit.loglik),
        grad_norm=float(fit.grad_norm),
        flags=[*fit.flags, *slope],
    )


def _feedback(counts: irt.Counts, z: Floats, origin: float, config: AbilityConfig) -> Fit:
    """theta by MAP with difficulties fixed at z + lambda (1 - 2 s/k) (irt.ability)."""
    b = feedback_difficulty(z - origin, counts.successes, counts.trials, config.feedback_strength)
    guess = _guess(counts)
    ability = irt.ability(
        counts.successes[None, :],
        np.ones_like(b),
        b,
        guess,
        estimator="map",
        trials=counts.trials[None, :],
        freq=counts.freq,
        theta_sd=config.theta_sd,
    )
    theta = float(ability.theta[0])
    loglik, slope = _loglik(counts, theta, b, guess)
    return _fit(
        counts,
        calibration="feedback",
        feedback_strength=config.feedback_strength,
        theta=theta,
        theta_se=float(ability.se[0]),
        gamma=1.0,
        origin=origin,
        loglik=loglik,
        grad_norm=abs(slope - theta / config.theta_sd**2),
        flags=[flag for flag in ability.flags if flag],
    )


def _loglik(counts: irt.Counts, theta: float, b: Floats, guess: Floats) -> tuple[float, float]:
    """Log-likelihood at theta for known difficulties, and its derivative."""
    p = probability(theta, b, guess)
    right = counts.freq * counts.successes
    wrong = counts.freq * (counts.trials - counts.successes)
    slope = (p - guess) * (1.0 - p) / (1.0 - guess)  # dp / dtheta
    loglik = xlogy(right, p).sum() + xlog1py(wrong, -p).sum()
    return float(loglik), float((slope * (right / p - wrong / (1.0 - p))).sum())


def _fit(counts: irt.Counts, **values: Any) -> Fit:
    """A Fit on the stage's own scale; ``fit_stage`` fills in stage, standardisation and link."""
    unset: dict[str, Any] = {
        "stage": 0,
        "gamma_se": None,
        "sigma": 0.0,
        "sigma_se": None,
        "location": 0.0,
        "scale": 1.0,
        "shift": 0.0,
        "feedback_strength": 0.0,
    }
    data = {
        "n_items": counts.n_items,
        "n_responses": int(counts.freq @ counts.trials),
        "n_right": int(counts.freq @ counts.successes),
        "convention": CONVENTION,
    }
    return Fit(**(unset | data | values))


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
