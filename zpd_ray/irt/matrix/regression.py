"""Explanatory models with the persons as the random side: the LLTM and latent regression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zpd_ray.irt import checks
from zpd_ray.irt.matrix import mml
from zpd_ray.irt.matrix.items import MAX_PARAMETERS
from zpd_ray.irt.matrix.mml import Model, Responses
from zpd_ray.irt.newton import Maximum, maximise
from zpd_ray.irt.pool.explanatory import MAX_RESPONDENTS, WEAK, fit_explanatory, units
from zpd_ray.irt.prior import Prior
from zpd_ray.irt.work import PATIENCE, Work

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LLTMFit:
    """`fit_lltm`: b = gamma'(x - origin) without residual, theta ~ N(theta_mean, theta_sd^2). Logits.

    flags: "not_converged", "weakly_identified" (a standard error over 20 logits, or none).
    """

    gamma: Array
    gamma_se: Array
    theta_mean: float
    se_theta_mean: float
    theta_sd: float
    se_theta_sd: float
    b: Array
    loglik: float
    grad_norm: float
    converged: bool
    flags: tuple[str, ...]
    origin: Array
    convention: str
    n_parameters: int


def fit_lltm(
    responses: ArrayLike,
    covariates: ArrayLike,
    freq: ArrayLike | None = None,
    *,
    trials: ArrayLike | None = None,
    origin: ArrayLike | None = None,
    patience: float = PATIENCE,
) -> LLTMFit:
    """Linear logistic test model (Fischer 1973, Acta Psychologica 37, 359-374), random persons, by
    marginal ML.

    responses, trials, freq as in `fit`; covariates: (n_items, n_covariates), without intercept: the mean
    ability takes its place. origin: covariate values of an item of difficulty 0, default their mean.
    patience: as of `fit`.
    """
    s, k = checks.binary(responses) if trials is None else checks.counts(responses, trials)
    weights = checks.frequencies(freq, s.shape[0])
    checks.answered(k[weights > 0] > 0)
    if s.shape[1] > MAX_PARAMETERS:
        raise ValueError(
            f"fit_lltm takes {MAX_PARAMETERS} items at most, got {s.shape[1]}; use fit_explanatory, whose "
            "items moreover have a residual, or fit a sample of the items."
        )
    x = checks.covariates(covariates, s.shape[1])
    centre = x.mean(axis=0) if origin is None else checks.vector("origin", origin, x.shape[1])
    x = x - centre
    checks.identified(x, np.ones(s.shape[1]), np.zeros(x.shape[1]))
    unit = units(x, np.ones(s.shape[1]))  # Newton's steps are measured in logits
    x = x / unit
    model, data = Model(s.shape[1], True, np.zeros(s.shape[1])), _responses(s, k, weights)
    work = Work.for_matrix(s.shape[0], s.shape[1], patience)
    # (d, slope) = basis @ (mean, gamma, sd): d = mean - x gamma
    basis = np.zeros((s.shape[1] + 1, x.shape[1] + 2))
    basis[:-1, 0], basis[:-1, 1:-1], basis[-1, -1] = 1.0, -x, 1.0

    def objective(rho: Array, deep: bool) -> tuple[float, Array, Array | None]:
        value, gradient, hessian = mml.objective(model, data, basis @ rho, deep, work)
        return value, basis.T @ gradient, None if hessian is None else basis.T @ hessian @ basis

    start = np.zeros(basis.shape[1])
    start[-1] = 1.0
    return _lltm(maximise(objective, start, work=work), x, unit, centre)


def _lltm(top: Maximum, x: Array, unit: Array, centre: Array) -> LLTMFit:
    """The result on the covariates as they came, of a maximum over (mean, gamma, sd) on those over `unit`."""
    se = np.sqrt(np.diag(top.covariance()))
    weak = () if (se <= WEAK).all() else ("weakly_identified",)
    return LLTMFit(
        gamma=top.x[1:-1] / unit,
        gamma_se=se[1:-1] / unit,
        theta_mean=float(top.x[0]),
        se_theta_mean=float(se[0]),
        theta_sd=float(abs(top.x[-1])),
        se_theta_sd=float(se[-1]),
        b=x @ top.x[1:-1],
        loglik=top.value,
        grad_norm=top.grad_norm,
        converged=top.converged,
        flags=tuple([] if top.converged else ["not_converged"]) + weak,
        origin=centre,
        convention="logits; slope 1; b = gamma'(x - origin); theta ~ N(theta_mean, theta_sd^2)",
        n_parameters=top.x.size,
    )


def _responses(s: checks.Numbers, k: checks.Numbers, weights: Array) -> Responses:
    """Rows of responses; scores where all have tried the same: d is fixed, so item totals enter linearly."""
    right, tried = s.astype(np.float64), k.astype(np.float64)
    totals = weights @ right
    if not (tried == tried[0]).all():
        return Responses(right, tried, weights, right.sum(axis=1), totals)
    score, rows = np.unique(right.sum(axis=1), return_inverse=True)
    by_score = np.bincount(rows.reshape(-1), weights).astype(np.float64)
    return Responses(None, tried[0], by_score, score, totals)


@dataclass(frozen=True)
class PersonFit:
    """`fit_persons`: theta_n ~ N(gamma'(w_n - origin), sigma^2), item difficulties fixed parameters. Logits.

    b, b_se: (n_items,); theta_mean, theta_sd: (n_respondents,), posterior of each ability given the
    estimates.
    """

    b: Array
    b_se: Array
    gamma: Array
    gamma_se: Array
    sigma: float
    sigma_se: float
    theta_mean: Array
    theta_sd: Array
    loglik: float
    grad_norm: float
    converged: bool
    flags: tuple[str, ...]
    origin: Array
    convention: str
    n_parameters: int


MIRRORED = {"all_right": "item_all_wrong", "all_wrong": "item_all_right"}


def fit_persons(
    successes: ArrayLike,
    trials: ArrayLike,
    person_covariates: ArrayLike,
    *,
    freq: ArrayLike | None = None,
    origin: ArrayLike | None = None,
    prior: Prior | None = None,
    patience: float = PATIENCE,
) -> PersonFit:
    """Latent regression Rasch model: abilities explained by covariates of the respondents (Mislevy 1987,
    Applied Psychological Measurement 11(1), 81-91).

    The mirror image of `fit_explanatory`: wrong answers of items on respondents. successes, trials:
    (n_respondents, n_items); person_covariates: (n_respondents, n_covariates); freq: (n_respondents,). In
    `prior`, theta stands for b. Without covariates this is the Rasch model by marginal ML. patience: as of
    `fit_explanatory`, respondents in place of items.
    """
    s, k = checks.counts(successes, trials)
    if s.shape[1] > MAX_RESPONDENTS:
        raise ValueError(
            f"fit_persons estimates a difficulty for each item, for {MAX_RESPONDENTS} items at most, got "
            f"{s.shape[1]}; use fit (model='rasch') or fit_explanatory, or fit a part of the items."
        )
    wrong, asked = (np.ascontiguousarray(part.T) for part in (k.astype(np.int64) - s, k))
    fit = fit_explanatory(
        wrong, asked, person_covariates, freq=freq, origin=origin, prior=prior, patience=patience
    )
    return PersonFit(
        b=fit.theta,
        b_se=fit.theta_se,
        gamma=fit.gamma,
        gamma_se=fit.gamma_se,
        sigma=fit.sigma,
        sigma_se=fit.sigma_se,
        theta_mean=fit.b_mean,
        theta_sd=fit.b_sd,
        loglik=fit.loglik,
        grad_norm=fit.grad_norm,
        converged=fit.converged,
        flags=tuple(MIRRORED.get(flag, flag) for flag in fit.flags),
        origin=fit.origin,
        convention="logits; slope 1; theta ~ N(gamma'(w - origin), sigma^2), mean 0 at the origin; b fixed",
        n_parameters=fit.n_parameters,
    )
