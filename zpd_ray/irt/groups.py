"""One ability for each group of items (a skill, a domain), shrunk to the common one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from zpd_ray.irt import checks, marginal
from zpd_ray.irt.design import Design, build
from zpd_ray.irt.explanatory import ExplanatoryFit
from zpd_ray.irt.newton import maximise

Array = NDArray[np.float64]

TAU_MIN, TAU_MAX = 1e-3, 5.0  # logits; below TAU_MIN the groups are one
ROUNDS = 12


@dataclass(frozen=True)
class GroupAbility:
    """`group_abilities`: theta, se (n_respondents, n_groups) in the order of `groups`; tau the sd between groups.

    flags: "no_group_differences" where tau is at its lower bound.
    """

    groups: NDArray[np.generic]
    theta: Array
    se: Array
    tau: float
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
) -> GroupAbility:
    """Abilities theta_jg ~ N(theta_j, tau^2) of respondent j on the items of group g, given a finished fit.

    Data arguments as in `fit_explanatory`; groups: (n_items,) labels. theta_j, gamma and sigma are those of the
    fit, difficulties are integrated out. tau is estimated by maximising its likelihood, each group's likelihood
    taken as normal at its posterior mode (empirical Bayes; Efron & Morris 1975, JASA 70, 311-319), or given. se
    is the posterior sd given theta_j and tau. A group without responses gets theta_j and tau.
    """
    s, k = checks.counts(successes, trials)
    x = np.asarray(covariates, np.float64)
    labels = np.asarray(groups)
    if x.shape != (s.shape[1], fit.gamma.size) or labels.shape != (s.shape[1],):
        raise ValueError(
            f"covariates must have shape ({s.shape[1]}, {fit.gamma.size}) and groups ({s.shape[1]},), got {x.shape} "
            f"and {labels.shape}."
        )
    if s.shape[0] != fit.theta.size or not np.isfinite(fit.theta).all():
        raise ValueError("group_abilities needs the respondents of the fit, each with a finite theta; give a prior.")
    c, weights = checks.floor(guess, s.shape[1]), checks.frequencies(freq, s.shape[1])
    names, member = np.unique(labels, return_inverse=True)
    designs = []
    for g in range(names.size):
        part = np.flatnonzero(member == g)
        designs.append(build(s[:, part], k[:, part], x[part] - fit.origin, c[part], weights[part]))
    width = 0.5 if tau is None else float(tau)
    theta, precision = _modes(fit, designs, width, np.repeat(fit.theta[:, None], names.size, axis=1))
    for _ in range(ROUNDS if tau is None else 0):
        before, width = width, _between(theta - fit.theta[:, None], precision, width)
        theta, precision = _modes(fit, designs, width, theta)
        if abs(width - before) < 1e-4 * (width + 1e-3):
            break
    se = 1.0 / np.sqrt(precision)
    flags = ("no_group_differences",) if width <= 1.01 * TAU_MIN else ()
    return GroupAbility(names, theta, se, width, flags)


def _modes(fit: ExplanatoryFit, designs: list[Design], tau: float, start: Array) -> tuple[Array, Array]:
    """Posterior modes (n_respondents, n_groups) and precisions given tau."""
    theta, precision = start.copy(), np.empty_like(start)
    rest = np.append(fit.gamma, np.log(fit.sigma))
    n = fit.theta.size
    for g, design in enumerate(designs):

        def objective(at: Array, deep: bool, design: Design = design) -> tuple[float, Array, Array | None]:
            value, gradient, hessian = marginal.objective(design, np.append(at, rest), deep)
            away = (at - fit.theta) / tau
            value -= 0.5 * float(away @ away)
            prior = None if hessian is None else hessian[:n, :n] - np.eye(n) / tau**2
            return value, gradient[:n] - away / tau, prior

        top = maximise(objective, start[:, g])
        theta[:, g] = top.x
        precision[:, g] = 1.0 / np.diag(top.covariance())
    return theta, precision


def _between(delta: Array, precision: Array, tau: float) -> float:
    """Maximum likelihood sd of the groups, each group's likelihood N(estimate, error^2) read off its posterior."""
    information = precision - tau**-2
    seen = information > 1e-6
    error = 1.0 / information[seen]
    estimate = delta[seen] * precision[seen] * error

    def deviance(log_tau: float) -> float:
        total = error + np.exp(2.0 * log_tau)
        return float(np.sum(np.log(total) + estimate**2 / total))

    if not seen.any():
        return tau
    found = minimize_scalar(deviance, bounds=(np.log(TAU_MIN), np.log(TAU_MAX)), method="bounded")
    edge = deviance(np.log(TAU_MIN)) <= found.fun + 1e-9
    return TAU_MIN if edge else float(np.exp(found.x))
