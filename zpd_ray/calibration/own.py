"""A stage's own calibration, from its NLLs and responses alone: by one ability, by groups, or by feedback."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlog1py, xlogy

from zpd_ray import grouping, irt
from zpd_ray.calibration.fit import Calibration
from zpd_ray.config import AbilityConfig
from zpd_ray.difficulty import (
    Scale,
    feedback_difficulty,
    guess_floor,
    log_nll_of_bin,
    standardise,
)
from zpd_ray.grouping import Groups, Profile
from zpd_ray.irt.pool.residual import STEP, fit_residual
from zpd_ray.matching import probability

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


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


def explanatory(answers: irt.Counts, z: Floats, standard: Standard, prior: irt.Prior) -> Own:
    """theta, gamma and sigma by marginal MAP, b integrated out (irt.fit_explanatory); then the shape."""
    return _shaped(_normal(_fit(answers, z, standard, prior), standard), answers, z)


def by_group(
    pooled: irt.Counts,
    answers: irt.Counts,
    standard: Standard,
    prior: irt.Prior,
    n_groups: int,
    before: Profile | None,
) -> tuple[Own, Groups]:
    """The same with an ability for each group; pooled, answers: the same items without and by group.

    before: of the stage before, whose sizes of groups are kept.
    """
    fit = _fit(pooled, _z_of(pooled, standard), standard, prior)
    own, z = _normal(fit, standard), _z_of(answers, standard)
    guess, sizes = guess_floor(answers["options"]), None if before is None else before.sizes
    found = grouping.estimate(fit, answers, z, guess, n_groups, prior, sizes)
    if found.tau == 0.0:
        return _shaped(own, pooled, _z_of(pooled, standard)), found
    calibration = replace(own.calibration, gamma=found.gamma, sigma=found.sigma)
    flags = own.flags if found.settled else [*own.flags, "groups_not_converged"]
    own = own._replace(theta=found.theta, calibration=calibration, flags=flags)
    return _shaped(own, answers, z, found.ahead[answers["group"]]), found


def _z_of(answers: irt.Counts, standard: Standard) -> Floats:
    return standardise(log_nll_of_bin(answers["nll_bin"]), standard.scale)


def _fit(answers: irt.Counts, z: Floats, standard: Standard, prior: irt.Prior) -> irt.ExplanatoryFit:
    return irt.fit_explanatory(
        answers["successes"][None, :],
        answers["trials"][None, :],
        z[:, None],
        guess_floor(answers["options"]),
        freq=answers.freq,
        origin=np.array([standard.origin]),
        prior=prior,
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


def feedback(answers: irt.Counts, z: Floats, standard: Standard, config: AbilityConfig) -> Own:
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
