"""Explanatory Rasch model: difficulties explained by covariates, with a residual.

    s_ij ~ Binomial(k_ij, c_i + (1 - c_i) sigmoid(theta_j - b_i)),   b_i ~ N(gamma'(x_i - origin), sigma^2)

Abilities theta, slopes gamma and the residual sd sigma are estimated by maximising the likelihood with the
difficulties integrated out (De Boeck 2008, Psychometrika 73(4), random item Rasch model; De Boeck & Wilson
2004, Explanatory Item Response Models); with a prior, its log density is added (MAP).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zpd_ray.irt import checks
from zpd_ray.irt.newton import TOLERANCE, Maximum, maximise
from zpd_ray.irt.pool import curves, marginal
from zpd_ray.irt.pool.design import SORTED_FROM, Design, build, column_sums
from zpd_ray.irt.pool.marginal import Latent
from zpd_ray.irt.prior import Prior, prior_arrays

Array = NDArray[np.float64]

SIGMA_MIN = 0.02  # logits; a residual sd below it cannot be told from none
SIGMA_MAX = 10.0  # logits; above it every response follows from the item alone, and the likelihood is flat
STEEPEST = 100.0  # logits per standard deviation of a covariate: it decides all responses by itself
FURTHEST = 1e4  # logits from the origin: a prior difficulty beyond it is a mistake of scale
CONVENTION = "logits; slope 1; difficulties b ~ N(gamma'(x - origin), sigma^2), mean 0 at the origin"
WEAK = 20.0  # logits; a larger standard error says that the data do not determine the parameter
MAX_RESPONDENTS = 1000  # each has a parameter, and a step costs the square of their number for every item
SAMPLE = 20_000  # items whose curvature stands for that of a larger pool between the first step and the last


@dataclass(frozen=True)
class ExplanatoryFit:
    """Result of `fit_explanatory`. Everything in logits.

    theta, theta_se: (n_respondents,). gamma, gamma_se: (n_covariates,). b_mean, b_sd: (n_items,),
    posterior of each column's difficulty given the estimates. loglik: marginal log-likelihood without
    binomial coefficients and without the prior. grad_norm: largest element of the gradient of what was
    maximised. theta_flags: (n_respondents,) "", "all_right", "all_wrong" or "at_floor" (no better than
    guessing). flags: "sigma_not_identified", "sigma_fixed", "sigma_at_lower_bound" (0.02),
    "responses_all_or_nothing" (sigma at its upper bound of 10: an item's responses are all right or all
    wrong, so that they say nothing of theta), "not_converged", "weakly_identified" (a standard error over 20
    logits), and those of the respondents. covariance: of (theta, gamma, log sigma), rows of parameters that
    were not estimated NaN.
    """

    theta: Array
    theta_se: Array
    gamma: Array
    gamma_se: Array
    sigma: float
    sigma_se: float
    b_mean: Array = field(repr=False)
    b_sd: Array = field(repr=False)
    loglik: float
    grad_norm: float
    converged: bool
    flags: tuple[str, ...]
    theta_flags: tuple[str, ...]
    origin: Array
    convention: str
    n_items: int
    n_parameters: int
    covariance: Array = field(repr=False)


def fit_explanatory(
    successes: ArrayLike,
    trials: ArrayLike,
    covariates: ArrayLike,
    guess: ArrayLike | None = None,
    *,
    freq: ArrayLike | None = None,
    origin: ArrayLike | None = None,
    prior: Prior | None = None,
) -> ExplanatoryFit:
    """Fit the explanatory Rasch model by marginal maximum likelihood (or MAP, with a prior).

    successes, trials: (n_respondents, n_items) whole numbers, trials = 0 where missing. covariates: (n_items,
    n_covariates), zero columns allowed. guess: floor c, None, scalar or (n_items,); over 64 distinct ones are
    put into 64 classes with their means. freq: (n_items,) whole numbers, column j standing for freq[j] items
    with the same covariates and responses. origin: (n_covariates,) values at which the prior mean difficulty
    is 0; default the freq-weighted mean, so that the mean difficulty over the items is 0.

    Where no item has more than one trial in all, sigma is not identified: it stays at prior.sigma_median,
    sigma_se is NaN and the flag "sigma_not_identified" is set. A respondent all right (or wrong) without a
    theta prior gets theta = +inf (-inf), the limit of the estimator, and the others are estimated without;
    with a finite theta_sd, a finite theta. Both are flagged. Where no respondent is left, and for every
    other input that cannot be fitted: ValueError.
    """
    prior = prior or Prior()
    s, k = checks.counts(successes, trials)
    n_respondents, n_items = s.shape
    if n_respondents > MAX_RESPONDENTS:
        raise ValueError(
            f"fit_explanatory estimates an ability for each respondent, for {MAX_RESPONDENTS} at most, got "
            f"{n_respondents}; use fit or fit_persons (random respondents), or fit a part of them."
        )
    x = checks.covariates(covariates, n_items)
    c = checks.floor(guess, n_items)
    weights = checks.frequencies(freq, n_items)
    checks.answered(k > 0)
    centre = weights @ x / weights.sum() if origin is None else checks.vector("origin", origin, x.shape[1])
    mean, precision = prior_arrays(prior, n_respondents, x.shape[1])
    checks.identified(x - centre, weights, precision[n_respondents:-1])
    # Newton's steps are measured in logits: a covariate of scale 1e-3 has slopes of 1e3 times that.
    unit = _units(x - centre, weights)
    slopes = slice(n_respondents, -1)
    mean[slopes], precision[slopes] = mean[slopes] * unit, precision[slopes] / unit**2
    design = build(s, k, (x - centre) / unit, c, weights)
    extremes = _extremes(design, c)
    keep = np.flatnonzero((extremes == "") | (precision[:n_respondents] > 0.0))
    if keep.size == 0:
        raise ValueError(
            f"every respondent is all right or all wrong (respondent 0: {extremes[0]}), so no ability is "
            f"finite; "
            "give a prior, fit_explanatory(..., prior=Prior(theta_sd=2.0)), or add responses."
        )
    inside = np.concatenate([keep, np.arange(n_respondents, mean.size)])
    design = design.rows(keep)
    # Where all items share their trials, curves need no order.
    order = design.order(_direction(design)) if design.row is None else None
    if order is not None:
        design = design.columns(order)
    problem = _Problem(design.collapsed(), mean[inside], precision[inside])
    top, flags = _solve(problem, prior, bool(column_sums(k).max() > 1.0))
    latent = Latent.of(top.x, keep.size)
    value = top.value + 0.5 * float(problem.precision @ (top.x - problem.mean) ** 2)
    moments = curves.moments(design, latent, sort=False)
    if order is not None:
        back = np.argsort(order, kind="stable")
        moments = moments[0][back], moments[1][back]
    return _result(top, value, flags, keep, extremes, moments, latent, centre, design, unit)


def posterior_difficulty(
    fit: ExplanatoryFit,
    successes: ArrayLike,
    trials: ArrayLike,
    covariates: ArrayLike,
    guess: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Posterior mean and sd of the difficulties of any items under a finished fit, each (n_items,).

    Arguments as in `fit_explanatory`, the respondents being those of the fit. An item without trials gets
    gamma'(x - origin) and sigma. Respondents whose theta is infinite carry no information and are left out.
    """
    s, k = checks.counts(successes, trials)
    if s.shape[0] != fit.theta.size:
        raise ValueError(
            f"successes has {s.shape[0]} respondents, the fit {fit.theta.size}; give a row for each of them."
        )
    x = checks.covariates(covariates, s.shape[1])
    if x.shape[1] != fit.gamma.size:
        raise ValueError(
            f"covariates has {x.shape[1]} columns, the fit {fit.gamma.size}; give the same ones."
        )
    finite = np.flatnonzero(np.isfinite(fit.theta))
    within_reach(x - fit.origin, fit.gamma)
    design = build(s, k, x - fit.origin, checks.floor(guess, s.shape[1]), np.ones(s.shape[1]))
    latent = Latent(fit.theta[finite], fit.gamma, fit.sigma)
    return curves.moments(design.rows(finite), latent)


def within_reach(x: Array, gamma: Array) -> None:
    """ValueError where covariates are so far from the fit's origin that they must be on another scale."""
    far = np.flatnonzero(~(np.abs(x @ gamma) <= FURTHEST))
    if far.size:
        raise ValueError(
            f"the covariates of item {far[0]} put it {x[far[0]] @ gamma:.3g} logits from the fit's origin "
            f"({far.size} items are over {FURTHEST:.0f} away); give covariates on the scale of the fit's."
        )


@dataclass(frozen=True)
class _Problem:
    """Data and prior: phi -> log posterior and derivatives."""

    design: Design
    mean: Array
    precision: Array

    @property
    def n_respondents(self) -> int:
        return self.design.trials.shape[0]

    def likelihood(self, phi: Array, with_hessian: bool) -> tuple[float, Array, Array | None]:
        latent = Latent.of(phi, self.n_respondents)
        if curves.pays(self.design, latent):
            return curves.objective(self.design, phi, with_hessian)
        order = self.design.order(latent.gamma) if self.design.row is not None else None
        design = self.design if order is None else self.design.columns(order)
        return marginal.objective(design, phi, with_hessian)

    def __call__(self, phi: Array, with_hessian: bool) -> tuple[float, Array, Array | None]:
        value, gradient, hessian = self.likelihood(phi, with_hessian)
        away = phi - self.mean
        value -= 0.5 * float(self.precision @ away**2)
        if hessian is not None:
            hessian = hessian - np.diag(self.precision)
        return value, gradient - self.precision * away, hessian

    def sample(self, stride: int) -> _Problem:
        """Every stride-th item, the prior weakened in proportion."""
        part = self.design.columns(slice(stride // 2, None, stride))
        return replace(self, design=part, precision=self.precision / stride)


def _solve(problem: _Problem, prior: Prior, identified: bool) -> tuple[Maximum, list[str]]:
    """Maximise over theta, gamma and, where it is identified and not fixed, log sigma."""
    flags = [] if identified else ["sigma_not_identified"]
    start = _start(problem, prior)
    if identified and prior.sigma_log_sd > 0.0:
        top = _maximise(problem, start, free=True)
        if np.log(SIGMA_MIN) <= top.x[-1] <= np.log(SIGMA_MAX):
            return top, flags
        low = bool(top.x[-1] < np.log(SIGMA_MIN))
        flags.append("sigma_at_lower_bound" if low else "responses_all_or_nothing")
        start = np.append(top.x[:-1], np.log(SIGMA_MIN if low else SIGMA_MAX))
    else:
        start[-1] = np.log(prior.sigma_median)
        if identified:
            flags.append("sigma_fixed")
    return _maximise(problem, start, free=False), flags


def _maximise(problem: _Problem, start: Array, *, free: bool) -> Maximum:
    """Newton; for large pools from a sample's maximum, with the sample's curvature."""
    curvature = None
    stride = problem.design.n_items // SAMPLE
    if stride >= 4:
        small = problem.sample(stride)
        if not np.any((small.design.totals == 0) | (small.design.totals == small.design.possible)):
            top = _maximise(small, start, free=free)
            start, curvature = top.x, top.hessian * stride
    size = start.size if free else start.size - 1
    # One step of Newton's may go beyond a bound, which shows that the maximum lies there.
    lowest, highest = np.log(SIGMA_MIN) - 0.7, np.log(SIGMA_MAX) + 2.0
    slopes = slice(problem.n_respondents, start.size - 1)
    largest = np.abs(problem.design.covariates).max(axis=0, initial=0.0)

    def outside(phi: Array) -> bool:
        return bool((free and phi[-1] > np.log(SIGMA_MAX)) or (np.abs(phi[slopes]) > STEEPEST).any())

    def objective(phi: Array, with_hessian: bool) -> tuple[float, Array, Array | None]:
        full = np.append(phi, start[size:])
        if not (lowest <= full[-1] <= highest and np.abs(full[slopes]) @ largest <= FURTHEST):
            return -np.inf, np.zeros(size), None
        value, gradient, hessian = problem(full, with_hessian)
        return value, gradient[:size], None if hessian is None else hessian[:size, :size]

    tolerance = TOLERANCE if curvature is None else 10.0 * TOLERANCE
    top = maximise(objective, start[:size], curvature=curvature, tolerance=tolerance, outside=outside)
    return replace(top, x=np.append(top.x, start[size:]))


def _units(centred: Array, weights: Array) -> Array:
    """Root mean square of each centred covariate, 1 for a constant one. (n_covariates,)"""
    size = np.sqrt(weights @ centred**2 / weights.sum())
    return np.where(size > 0.0, size, 1.0)


def _direction(design: Design) -> Array:
    """Slopes of the share of wrong answers on the covariates: rough, but enough to sort items by."""
    x, d = design.covariates, design
    if d.n_items < SORTED_FROM or x.shape[1] == 0:
        return np.zeros(x.shape[1])
    wrong = -d.score / np.maximum(column_sums(d.trials), 1.0)
    return np.linalg.lstsq(x.T @ x, x.T @ (wrong - wrong.mean()), rcond=None)[0]


def _start(problem: _Problem, prior: Prior) -> Array:
    d = problem.design
    floor = sum(c * float(d.freq[columns].sum()) for c, columns in d.floors) / d.freq.sum()
    p = np.clip((d.totals + 0.5) / (d.possible + 1.0), floor + 0.02 * (1.0 - floor), None)
    p = np.clip((p - floor) / (1.0 - floor), 1e-4, 1.0 - 1e-4)
    sigma = float(np.clip(prior.sigma_median, 0.3, 2.0))
    start = np.concatenate([np.log(p / (1.0 - p)), np.zeros(d.covariates.shape[1]), [np.log(sigma)]])
    share = problem.precision / (1.0 + problem.precision)
    return start + share * (problem.mean - start)


def _result(
    top: Maximum,
    value: float,
    flags: list[str],
    keep: NDArray[np.intp],
    extremes: NDArray[np.str_],
    moments: tuple[Array, Array],
    latent: Latent,
    origin: Array,
    design: Design,
    unit: Array,
) -> ExplanatoryFit:
    n = extremes.size
    size = n + latent.gamma.size + 1
    rows = np.concatenate([keep, np.arange(n, size)])[: top.gradient.size]
    covariance = np.full((size, size), np.nan)
    covariance[np.ix_(rows, rows)] = top.covariance()
    given = np.concatenate([np.ones(n), 1.0 / unit, np.ones(1)])  # slopes on the covariates as they came
    covariance *= np.outer(given, given)
    se = np.sqrt(np.diag(covariance))
    theta = np.where(extremes == "all_right", np.inf, -np.inf)
    theta[keep] = latent.theta
    noted = [*flags, *sorted(set(extremes.tolist()) - {""})] + ([] if top.converged else ["not_converged"])
    # a slope counts by what it moves: one of 1e-8 on a covariate of 1e8 is as well known as one of 1
    if (np.append(se[:n][keep], se[n:-1] * unit) > WEAK).any():
        noted.append("weakly_identified")
    return ExplanatoryFit(
        theta=theta,
        theta_se=np.where(np.isinf(theta), np.inf, se[:n]),
        gamma=latent.gamma / unit,
        gamma_se=se[n:-1],
        sigma=latent.sigma,
        sigma_se=float(latent.sigma * se[-1]),
        b_mean=moments[0],
        b_sd=moments[1],
        loglik=value,
        grad_norm=top.grad_norm,
        converged=top.converged,
        flags=tuple(noted),
        theta_flags=tuple(extremes.tolist()),
        origin=origin,
        convention=CONVENTION,
        n_items=int(design.freq.sum()),
        n_parameters=top.gradient.size,
        covariance=covariance,
    )


def _extremes(design: Design, c: Array) -> NDArray[np.str_]:
    """Respondents whose ability has no finite maximum, and why."""
    flags = np.full(design.totals.size, "", dtype="<U9")
    if c.any():
        flags[design.totals <= design.trials @ (design.freq * c)] = "at_floor"
    flags[design.totals == 0] = "all_wrong"
    flags[design.totals == design.possible] = "all_right"
    return flags
