"""One ability for each group of items (a skill, a domain), shrunk to the common one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zpd_ray.irt import checks
from zpd_ray.irt.newton import maximise
from zpd_ray.irt.pool import marginal
from zpd_ray.irt.pool.design import Design, build, few_floors
from zpd_ray.irt.pool.explanatory import ExplanatoryFit, units, within_reach
from zpd_ray.irt.pool.maximum import SIGMA_MAX
from zpd_ray.irt.prior import Prior, prior_arrays
from zpd_ray.irt.work import PATIENCE, TooMuchWorkError, Work

Array = NDArray[np.float64]

TAU_MIN, TAU_MAX = 1e-3, 5.0  # logits; below TAU_MIN the groups are one
SIGMA_LEAST = 0.1  # logits; a smaller residual moves no ability, and takes a fine grid to integrate over
ROUNDS = 25
STEPS = 3  # of Newton's in a round, at most: the next round goes on from there
FLOORS = 16  # of a group, each with a grid of its own; more are put into classes
MAX_ABILITIES = 5000  # respondents x groups
SETTLED = 1e-4  # logits
FAR = 10.0  # logits from a mode: no likelihood is normal up to there


@dataclass(frozen=True)
class GroupAbility:
    """`group_abilities`: theta, se (n_respondents, n_groups) in the order of `groups`; common, common_se
    (n_respondents,) the mean they are shrunk to; tau the sd between groups; gamma, sigma refitted beside
    them.

    flags: "no_group_differences" where tau is at its lower bound; "not_converged" where the rounds ended
    before nothing moved.
    """

    groups: NDArray[Any]
    theta: Array
    se: Array
    common: Array
    common_se: Array
    tau: float
    gamma: Array
    sigma: float
    flags: tuple[str, ...]


def group_abilities(
    fit: ExplanatoryFit,
    successes: ArrayLike,
    trials: ArrayLike,
    covariates: ArrayLike,
    groups: ArrayLike,
    guess: ArrayLike | None = None,
    *,
    freq: ArrayLike | None = None,
    tau: float | None = None,
    prior: Prior | None = None,
    patience: float = PATIENCE,
) -> GroupAbility:
    """Abilities theta_jg ~ N(theta_j, tau^2) of respondent j on the items of group g, starting from a fit.

    Data arguments as in `fit_explanatory`; groups: (n_items,) labels. Difficulties are integrated out. In
    turns until they settle: the groups' posterior modes; gamma and sigma (unless the fit held sigma),
    which would be too wide were the groups one, with their part of `prior` where it is given, sigma between
    0.1 and 10; theta_j and tau by maximum likelihood, each group's likelihood taken as normal at its mode
    (empirical Bayes; Efron & Morris 1975, JASA 70, 311-319), or tau as given. se is the posterior sd given
    theta_j and tau. A group without responses cannot be told from theta_j and gets sd tau. patience: as of
    `fit_explanatory`; rounds end there, "not_converged". Raises ValueError for shapes that do not fit, a fit
    with infinite abilities, more than 5,000 abilities, and where the first round would take longer.
    """
    s, k = checks.counts(successes, trials)
    x, labels = checks.covariates(covariates, s.shape[1]), np.asarray(groups)
    _check(fit, s, x, labels, tau)
    within_reach(x - fit.origin, fit.gamma)
    c, weights = checks.floor(guess, s.shape[1]), checks.frequencies(freq, s.shape[1])
    names, member = np.unique(labels, return_inverse=True)
    mean, precision = prior_arrays(prior or Prior(), fit.theta.size, fit.gamma.size)
    x = x - fit.origin
    unit = units(x, weights)
    x, rescaled = x / unit, np.append(unit, 1.0)
    designs = []
    for g in range(names.size):
        part = np.flatnonzero(member == g)
        designs.append(build(s[:, part], k[:, part], x[part], few_floors(c[part], FLOORS), weights[part]))
    free = bool(np.isfinite(fit.sigma_se))
    sigma = min(max(fit.sigma, SIGMA_LEAST), SIGMA_MAX) if free else fit.sigma
    state = _State(
        np.repeat(fit.theta[:, None], names.size, axis=1),
        np.ones((fit.theta.size, names.size)),
        fit.theta,
        np.append(fit.gamma * unit, np.log(sigma)),
        0.5 if tau is None else float(tau),
    )
    own = (mean[fit.theta.size :] * rescaled, precision[fit.theta.size :] / rescaled**2)
    work = Work.for_items(s.shape[1], patience)
    state, settled = _settle(state, designs, tau is None, free, own, work)
    flags: tuple[str, ...] = ("no_group_differences",) if state.tau <= 1.01 * TAU_MIN else ()
    flags += () if settled else ("not_converged",)
    spread = 1.0 / np.sqrt(state.precision)
    common_se = 1.0 / np.sqrt((1.0 / (state.tau**2 + _error(state))).sum(axis=1))
    gamma, sigma = state.rest[:-1] / unit, float(np.exp(state.rest[-1]))
    return GroupAbility(names, state.theta, spread, state.common, common_se, state.tau, gamma, sigma, flags)


def _check(fit: ExplanatoryFit, s: checks.Numbers, x: Array, labels: NDArray[Any], tau: float | None) -> None:
    if x.shape != (s.shape[1], fit.gamma.size) or labels.shape != (s.shape[1],):
        raise ValueError(
            f"covariates must have shape ({s.shape[1]}, {fit.gamma.size}) and groups ({s.shape[1]},), got "
            f"{x.shape} and {labels.shape}."
        )
    if s.shape[0] != fit.theta.size or not np.isfinite(fit.theta).all():
        raise ValueError(
            "group_abilities needs the respondents of the fit, all finite; fit them with a prior."
        )
    if tau is not None and not 0.0 < tau < np.inf:
        raise ValueError(f"tau must be finite and > 0, got {tau}; None estimates it.")
    groups = np.unique(labels).size
    if groups * s.shape[0] > MAX_ABILITIES:
        raise ValueError(
            f"group_abilities estimates {s.shape[0]} x {groups} abilities, respondents x groups, "
            f"{MAX_ABILITIES} at most; pool rare groups, or pass some of the respondents."
        )


class _State(NamedTuple):
    """theta, precision (n_respondents, n_groups); common (n_respondents,); rest = (gamma, log sigma); tau."""

    theta: Array
    precision: Array
    common: Array
    rest: Array
    tau: float


def _error(state: _State) -> Array:
    """Sampling variance of each group's own estimate, the prior taken out of the posterior precision."""
    return 1.0 / np.maximum(state.precision - state.tau**-2, 1e-9)


def _settle(
    state: _State,
    designs: list[Design],
    free_tau: bool,
    free_sigma: bool,
    prior: tuple[Array, Array],
    work: Work,
) -> tuple[_State, bool]:
    """Rounds until nothing moves; whether it came to that."""
    for number in range(ROUNDS):
        before = state
        inside = SIGMA_LEAST < 0.99 * np.exp(state.rest[-1]) < 0.98 * SIGMA_MAX  # at a bound it stays there
        try:
            state = _round(state, designs, free_tau, free_sigma and bool(inside), prior, work)
        except TooMuchWorkError:
            if number == 0:  # nothing is known of any group
                raise
            break
        if max(abs(state.tau - before.tau), float(np.abs(state.theta - before.theta).max())) < SETTLED:
            return state, True
    return state, False


def _round(
    state: _State,
    designs: list[Design],
    free_tau: bool,
    free_sigma: bool,
    prior: tuple[Array, Array],
    work: Work,
) -> _State:
    theta, precision, slope = _modes(state, designs, work)
    state = state._replace(theta=theta, precision=precision)
    state = state._replace(rest=_rest(state, designs, free_sigma, prior, work))
    error = _error(state)
    # Each group's own estimate is a Newton step away, without the prior; where it is far, nothing is known.
    estimate = theta + np.clip(slope * error, -FAR, FAR)
    if free_tau:
        state = state._replace(tau=_between(estimate - state.common[:, None], error))
    weight = 1.0 / (state.tau**2 + error)
    return state._replace(common=(weight * estimate).sum(axis=1) / weight.sum(axis=1))


def _modes(state: _State, designs: list[Design], work: Work) -> tuple[Array, Array, Array]:
    """Posterior modes and precisions given the common ability, tau, gamma and sigma, or where Newton's steps
    have led to; slopes of the log-likelihood there.
    """
    theta, precision, slope = state.theta.copy(), np.empty_like(state.theta), np.empty_like(state.theta)
    n = state.common.size
    for g, design in enumerate(designs):

        def objective(at: Array, deep: bool, design: Design = design) -> tuple[float, Array, Array | None]:
            value, gradient, hessian = marginal.objective(design, np.append(at, state.rest), deep, work)
            away = (at - state.common) / state.tau
            value -= 0.5 * float(away @ away)
            prior = None if hessian is None else hessian[:n, :n] - np.eye(n) / state.tau**2
            return value, gradient[:n] - away / state.tau, prior

        top = maximise(objective, theta[:, g], max_iterations=STEPS, work=work)
        theta[:, g] = top.x
        slope[:, g] = top.gradient + (top.x - state.common) / state.tau**2
        spread = np.diag(top.covariance())
        # At chance level the Hessian need not be definite: then each ability's own curvature.
        alone = np.maximum(-np.diag(top.hessian), state.tau**-2)
        precision[:, g] = np.where(spread > 0.0, 1.0 / np.where(spread > 0.0, spread, 1.0), alone)
    return theta, precision, slope


def _rest(
    state: _State, designs: list[Design], free_sigma: bool, prior: tuple[Array, Array], work: Work
) -> Array:
    """gamma and log sigma given the abilities; prior: their means and precisions (0: none)."""
    n = state.common.size
    size = state.rest.size if free_sigma else state.rest.size - 1

    def objective(at: Array, deep: bool) -> tuple[float, Array, Array | None]:
        full = np.append(at, state.rest[size:])
        if free_sigma and not np.log(SIGMA_LEAST) <= full[-1] <= np.log(SIGMA_MAX):
            return -np.inf, np.zeros(size), None
        away, precision = at - prior[0][:size], prior[1][:size]
        value, gradient = -0.5 * float(precision @ away**2), -precision * away
        hessian = -np.diag(precision) if deep else None
        for g, design in enumerate(designs):
            own = marginal.objective(design, np.append(state.theta[:, g], full), deep, work)
            value += own[0]
            gradient += own[1][n : n + size]
            if hessian is not None and own[2] is not None:
                hessian += own[2][n : n + size, n : n + size]
        return value, gradient, hessian

    if size == 0:
        return state.rest
    return np.append(
        maximise(objective, state.rest[:size], max_iterations=STEPS, work=work).x, state.rest[size:]
    )


def _between(estimate: Array, error: Array) -> float:
    """Maximum likelihood sd of the groups, each estimate being N(0, tau^2 + error)."""
    from scipy.optimize import minimize_scalar

    def deviance(log_tau: float) -> float:
        total = error + np.exp(2.0 * log_tau)
        return float(np.sum(np.log(total) + estimate**2 / total))

    found = minimize_scalar(deviance, bounds=(np.log(TAU_MIN), np.log(TAU_MAX)), method="bounded")
    edge = deviance(np.log(TAU_MIN)) <= found.fun + 1e-9
    return TAU_MIN if edge else float(np.exp(found.x))
