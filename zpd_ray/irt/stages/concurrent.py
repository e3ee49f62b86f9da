"""Abilities of several stages on one scale, from all responses at once (concurrent calibration).

Difficulties are the items' own and stay; the model moves. theta_0 .. theta_t are estimated together with what
explains difficulty (Kolen & Brennan 2014, Test Equating, section 6.4: concurrent calibration; the model is
`irt.fit_explanatory`'s with a respondent for each stage). Responses that were not given are missing: an item
that was trained on keeps what it answered before. That it was chosen by those answers does no harm, since
they are in the likelihood (missing at random, Rubin 1976, Biometrika 63(3)).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from zpd_ray.irt.pool.explanatory import ExplanatoryFit, Prepared, prepare
from zpd_ray.irt.pool.maximum import SIGMA_MAX, SIGMA_MIN, Trail
from zpd_ray.irt.prior import Prior, prior_arrays
from zpd_ray.irt.work import PATIENCE

Array = NDArray[np.float64]

# Below this standard error of log sigma the posterior is close to normal, and its curvature says it all.
WELL_KNOWN = 0.2
STEP_PER_SD = 0.75  # of the integration over log sigma, in sd of what it is weighted by (trapezoid rule)
REACH = 2.25  # sd


@dataclass(frozen=True)
class StagesFit:
    """Result of `fit_stages`, in logits.

    theta, theta_se: (n_stages,). gain, gain_se: theta - theta[0] and its standard error, (n_stages,), 0 for
    the first, NaN where both are infinite. Errors include what is not known about gamma and sigma. sigma,
    log_sigma_se: residual sd of b and the standard error of its logarithm. gamma, gamma_se: (n_covariates,).
    flags: of the maximum, and "not_converged" where a fit at some sigma was cut short.
    fit: the underlying maximum.
    """

    theta: Array
    theta_se: Array
    gain: Array
    gain_se: Array
    gamma: Array
    gamma_se: Array
    sigma: float
    log_sigma_se: float
    flags: tuple[str, ...]
    fit: ExplanatoryFit


def fit_stages(
    successes: ArrayLike,
    trials: ArrayLike,
    covariates: ArrayLike,
    guess: ArrayLike | None = None,
    *,
    freq: ArrayLike | None = None,
    origin: ArrayLike | None = None,
    prior: Prior,
    patience: float = PATIENCE,
) -> StagesFit:
    """Abilities of the stages of one model, and their gains; errors include what is not known of sigma.

    Arguments as in `irt.fit_explanatory`, a row for each stage; ``prior`` needs a finite theta_sd and a
    finite sigma_log_sd > 0. ``patience`` is for the fits at all sigmas together.

    Where responses say little about sigma (one response per item says nothing that does not hang on the
    shape of the curve; nor do responses that repeat one another, flag "responses_all_or_nothing"), theta is
    a mixture over sigma: weighted by the prior where no item has two responses that differ, else by prior x
    likelihood (Laplace's approximation for the other parameters; Tierney & Kadane 1986, JASA 81(393)). Its
    mean and sd are reported. The shape is not asked: on real responses it pointed to a sigma of 4 and more
    where repeated responses show 0.95 (docs/decisions.md).
    """
    if not (np.isfinite(prior.sigma_log_sd) and prior.sigma_log_sd > 0.0):
        raise ValueError(
            f"fit_stages integrates over the prior of sigma: Prior(sigma_log_sd=...) must be finite and > 0, "
            f"got {prior.sigma_log_sd}."
        )
    data = prepare(
        successes, trials, covariates, guess, freq=freq, origin=origin, prior=prior, patience=patience
    )
    top, trail = data.fit(prior)
    identified = not {"sigma_not_identified", "responses_all_or_nothing"} & set(top.flags)
    error = top.sigma_se / top.sigma if np.isfinite(top.sigma_se) else np.inf
    if data.work.is_over or (identified and error < WELL_KNOWN):
        return _result(top, top.theta, _covariance(top), top.gamma, top.sigma, float(error))
    nodes = _nodes(float(np.log(top.sigma)), float(error), prior)
    log_weight = -0.5 * ((nodes - np.log(prior.sigma_median)) / prior.sigma_log_sd) ** 2
    fits = _fits(data, trail, nodes, prior)
    if data.work.is_over:  # one of them was cut short
        top = replace(top, flags=(*top.flags, "not_converged"), converged=False)
    evidence = np.array([_log_evidence(fit, prior) for fit in fits])
    if identified and np.isfinite(evidence).any():  # else no fit has a maximum, and the prior is all there is
        log_weight = log_weight + evidence
    weight = np.exp(log_weight - logsumexp(log_weight))
    counted = np.flatnonzero(weight)  # a fit without a maximum has no covariance either
    theta, covariance = _mixture(weight[counted], [fits[at] for at in counted])
    gamma = weight @ np.stack([fit.gamma for fit in fits])
    centre = float(weight @ nodes)
    spread = float(np.sqrt(weight @ (nodes - centre) ** 2))
    return _result(top, theta, covariance, gamma, float(np.exp(centre)), spread)


def _nodes(centre: float, error: float, prior: Prior) -> Array:
    """log sigma at equal steps around its estimate, or (error infinite) around its prior's median."""
    if not np.isfinite(error) or error > prior.sigma_log_sd:
        centre, error = float(np.log(prior.sigma_median)), prior.sigma_log_sd
    steps = np.arange(-REACH, REACH + 0.1, STEP_PER_SD)
    return np.unique(np.clip(centre + error * steps, np.log(SIGMA_MIN), np.log(SIGMA_MAX)))


def _fits(data: Prepared, top: Trail, nodes: Array, prior: Prior) -> list[ExplanatoryFit]:
    """The maximum at each log sigma, each found from that of a sigma beside it."""
    fits = {}
    for side in (nodes[nodes >= top.x[-1]], nodes[nodes < top.x[-1]][::-1]):
        near = top
        for node in side.tolist():
            at = replace(prior, sigma_median=float(np.exp(node)), sigma_log_sd=0.0)
            fits[node], near = data.fit(at, near)
    return [fits[node] for node in nodes.tolist()]


def _covariance(fit: ExplanatoryFit) -> Array:
    """Of theta, (n_stages, n_stages)."""
    return fit.covariance[: fit.theta.size, : fit.theta.size]


def _log_evidence(fit: ExplanatoryFit, prior: Prior) -> float:
    """log of the integral over theta and gamma of likelihood x prior, without constants."""
    mean, precision = prior_arrays(prior, fit.theta.size, fit.gamma.size)
    away = np.concatenate([fit.theta, fit.gamma]) - mean[:-1]
    known = fit.covariance[:-1, :-1]
    sign, logdet = np.linalg.slogdet(known) if np.isfinite(known).all() else (0.0, 0.0)
    if not sign > 0:  # no maximum there, or none that a fit has found
        return -np.inf
    return float(fit.loglik - 0.5 * precision[:-1] @ away**2 + 0.5 * logdet)


def _mixture(weight: Array, fits: list[ExplanatoryFit]) -> tuple[Array, Array]:
    thetas = np.stack([fit.theta for fit in fits])
    mean = weight @ thetas
    with np.errstate(invalid="ignore"):  # infinite at every sigma, flagged as all right or all wrong
        away = np.where(np.isfinite(mean), thetas - mean, 0.0)
    within = np.einsum("f,fij->ij", weight, np.stack([_covariance(fit) for fit in fits]))
    return mean, within + np.einsum("f,fi,fj->ij", weight, away, away)


def _result(
    top: ExplanatoryFit, theta: Array, covariance: Array, gamma: Array, sigma: float, error: float
) -> StagesFit:
    variance = np.where(np.isinf(theta), np.inf, np.diag(covariance))
    with np.errstate(invalid="ignore"):  # two infinite ones, flagged as all right or all wrong: NaN
        gain, of_gain = theta - theta[0], variance + variance[0] - 2.0 * covariance[0]
    return StagesFit(
        theta=theta,
        theta_se=np.sqrt(variance),
        gain=gain,
        gain_se=np.sqrt(np.maximum(of_gain, 0.0)),
        gamma=gamma,
        gamma_se=top.gamma_se,
        sigma=sigma,
        log_sigma_se=error,
        flags=top.flags,
        fit=top,
    )
