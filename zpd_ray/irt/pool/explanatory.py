"""Explanatory Rasch model: difficulties explained by covariates, with a residual.

    s_ij ~ Binomial(k_ij, c_i + (1 - c_i) sigmoid(theta_j - b_i)),   b_i ~ N(gamma'(x_i - origin), sigma^2)

Abilities theta, slopes gamma and the residual sd sigma are estimated by maximising the likelihood with the
difficulties integrated out (De Boeck 2008, Psychometrika 73(4), random item Rasch model; De Boeck & Wilson
2004, Explanatory Item Response Models); with a prior, its log density is added (MAP).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zpd_ray.irt import checks
from zpd_ray.irt.newton import Maximum
from zpd_ray.irt.pool import curves
from zpd_ray.irt.pool.blocks import Latent
from zpd_ray.irt.pool.design import SORTED_FROM, Design, build, column_sums
from zpd_ray.irt.pool.maximum import FURTHEST, Problem, Trail, solve
from zpd_ray.irt.prior import Prior, prior_arrays
from zpd_ray.irt.work import PATIENCE, Work

Array = NDArray[np.float64]

CONVENTION = "logits; slope 1; difficulties b ~ N(gamma'(x - origin), sigma^2), mean 0 at the origin"
WEAK = 20.0  # logits; a larger standard error says that the data do not determine the parameter
MAX_RESPONDENTS = 500  # each has a parameter, and a step costs the square of their number for every item


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
    patience: float = PATIENCE,
) -> ExplanatoryFit:
    """Fit the explanatory Rasch model by marginal maximum likelihood (or MAP, with a prior).

    successes, trials: (n_respondents, n_items) whole numbers, trials = 0 where missing. covariates: (n_items,
    n_covariates), zero columns allowed. guess: floor c, None, scalar or (n_items,); over 64 distinct ones are
    put into 64 classes with their means. freq: (n_items,) whole numbers, column j standing for freq[j] items
    with the same covariates and responses. origin: (n_covariates,) values at which the prior mean difficulty
    is 0; default the freq-weighted mean, so that the mean difficulty over the items is 0. patience: seconds
    of a core that the fit may take, about, with 10,000 items or fewer, in proportion with more; it is counted
    as work, so that results do not hang on the machine. What takes longer ends "not_converged", or in a
    ValueError where not even the first step can be made.

    Where no item has more than one trial in all, sigma is not identified: it stays at prior.sigma_median,
    sigma_se is NaN and the flag "sigma_not_identified" is set. A respondent all right (or wrong) without a
    theta prior gets theta = +inf (-inf), the limit of the estimator, and the others are estimated without;
    with a finite theta_sd, a finite theta. Both are flagged. Where no respondent is left, and for every
    other input that cannot be fitted: ValueError.
    """
    prior = prior or Prior()
    data = prepare(
        successes, trials, covariates, guess, freq=freq, origin=origin, prior=prior, patience=patience
    )
    return data.fit(prior)[0]


@dataclass(frozen=True)
class Prepared:
    """Checked data, to be fitted with one prior of sigma after the other.

    design: of the respondents `keep`, whose abilities have a maximum, items in `order` where that pays,
    covariates less `origin` and over `unit`. extremes: (n_respondents,) flags of the abilities. mean,
    precision: prior of theta, gamma and log sigma as they are fitted. repeated: some item has two trials.
    work: what all fits together may take.
    """

    design: Design
    order: NDArray[np.intp] | None
    keep: NDArray[np.intp]
    extremes: NDArray[np.str_]
    origin: Array
    unit: Array
    mean: Array
    precision: Array
    repeated: bool
    work: Work

    def fit(self, prior: Prior, near: Trail | None = None) -> tuple[ExplanatoryFit, Trail]:
        """The maximum, and what finding the next one is helped by; `prior` may have another sigma than that
        of `prepare`, and nothing else. near: of another sigma, to start from; b_mean and b_sd are then empty.
        """
        own, inside = prior_arrays(prior, self.extremes.size, self.unit.size), self._inside
        problem = Problem(
            self.design.collapsed(),
            np.append(self.mean, own[0][-1])[inside],
            np.append(self.precision, own[1][-1])[inside],
            self.work,
        )
        top, flags, trail = solve(problem, prior, self.repeated, near)
        latent = Latent.of(top.x, self.keep.size)
        value = top.value + 0.5 * float(problem.precision @ (top.x - problem.mean) ** 2)
        moments = self._moments(latent) if near is None else (np.empty(0), np.empty(0))
        return _result(top, value, flags, self, moments, latent), trail

    @property
    def _inside(self) -> NDArray[np.intp]:
        """Places among (theta, gamma, log sigma) of all respondents that are fitted."""
        n = self.extremes.size
        return np.concatenate([self.keep, np.arange(n, n + self.unit.size + 1)])

    def _moments(self, latent: Latent) -> tuple[Array, Array]:
        """Posterior means and sds of the difficulties, in the order that the items came in."""
        mean, sd = curves.moments(self.design, latent, sort=False)
        if self.order is None:
            return mean, sd
        back = np.argsort(self.order, kind="stable")
        return mean[back], sd[back]


def prepare(
    successes: ArrayLike,
    trials: ArrayLike,
    covariates: ArrayLike,
    guess: ArrayLike | None,
    *,
    freq: ArrayLike | None,
    origin: ArrayLike | None,
    prior: Prior,
    patience: float = PATIENCE,
) -> Prepared:
    """Check the arguments of `fit_explanatory`. Raises ValueError for what cannot be fitted."""
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
    unit = units(x - centre, weights)
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
    design = design.rows(keep)
    # Where all items share their trials, curves need no order.
    order = design.order(_direction(design)) if design.row is None else None
    if order is not None:
        design = design.columns(order)
    repeated = bool(column_sums(k).max() > 1.0)
    work = Work.for_items(n_items, patience)
    return Prepared(design, order, keep, extremes, centre, unit, mean[:-1], precision[:-1], repeated, work)


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


def units(centred: Array, weights: Array) -> Array:
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


def _result(
    top: Maximum,
    value: float,
    flags: list[str],
    data: Prepared,
    moments: tuple[Array, Array],
    latent: Latent,
) -> ExplanatoryFit:
    extremes, keep, unit = data.extremes, data.keep, data.unit
    n = extremes.size
    size = n + latent.gamma.size + 1
    rows = data._inside[: top.gradient.size]
    covariance = np.full((size, size), np.nan)
    covariance[np.ix_(rows, rows)] = top.covariance()
    given = np.concatenate([np.ones(n), 1.0 / unit, np.ones(1)])  # slopes on the covariates as they came
    covariance *= np.outer(given, given)
    se = np.sqrt(np.diag(covariance))
    theta = np.where(extremes == "all_right", np.inf, -np.inf)
    theta[keep] = latent.theta
    noted = [*flags, *sorted(set(extremes.tolist()) - {""})] + ([] if top.converged else ["not_converged"])
    # A slope counts by what it moves: one of 1e-8 on a covariate of 1e8 is as well known as one of 1. NaN,
    # where the curvature is not that of a maximum, is not under WEAK either.
    if not (np.append(se[:n][keep], se[n:-1] * unit) <= WEAK).all():
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
        origin=data.origin,
        convention=CONVENTION,
        n_items=int(data.design.freq.sum()),
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
