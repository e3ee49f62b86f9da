"""A step of the filter: what a batch of graded rollouts says of ability, of practice and of each difficulty.

s_i of k_i rollouts of prompt i are right, s_i ~ Binomial(k_i, sigmoid(x_i)), x_i = theta + c_i delta - b_i:
the Rasch model (Rasch 1960) with theta for ability, and with delta for what a prompt got easier by its own
training since it was last asked; c_i is 1 where it was asked before, else 0. Without delta, a pool of which a
part is practised makes theta rise with that part, and what was never asked look easy.

The belief is a normal for (theta, delta) and one for each b_i, independent of each other: assumed density
filtering (Opper 1998, "A Bayesian approach to on-line learning"; for players of games Glickman 1999, Applied
Statistics 48, 377-394, who takes one Newton step; Elo's rating also holds the variances fixed). The normals
of a batch are found by expectation propagation (Minka 2001, UAI 17; Rasmussen & Williams 2006, section 3.6).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Gauss-Hermite, centred on the mode and scaled by the curvature there (Naylor & Smith 1982, Applied
# Statistics 31, 214-225): the integral of f over a standard normal's neighbourhood is the sum of WEIGHTS
# f(NODES).
NODES, _PLAIN = np.polynomial.hermite_e.hermegauss(9)
WEIGHTS = _PLAIN * np.exp(0.5 * NODES**2)
NEWTON_STEPS, NEWTON_SETTLED = 30, 1e-2  # logits; the nodes need no exact centre
SWEEPS = 30
SETTLED = 0.02  # standard deviations: a sweep that moves ability and practice by less is the last
LEAST_PRECISION = 1e-12  # of a site; a log-concave likelihood has none below zero, but for rounding


class Normal(NamedTuple):
    """Means and variances of independent normals: arrays (n,), logits and logits squared."""

    mean: Floats
    var: Floats


class Common(NamedTuple):
    """The normal of (theta, delta): mean (2,) in logits, cov (2, 2)."""

    mean: Floats
    cov: Floats

    def of(self, practised: Flags) -> Normal:
        """theta, or theta + delta where ``practised``, bool (n,): arrays (n,)."""
        both, var = self.mean.sum(), self.cov.sum()
        return Normal(np.where(practised, both, self.mean[0]), np.where(practised, var, self.cov[0, 0]))


def absorb(
    common: Common, b: Normal, practised: Flags, successes: Floats, rollouts: Floats
) -> tuple[Common, Normal]:
    """The belief after a batch, in which each prompt is once: (theta, delta), and the b of its prompts.

    b, successes, rollouts (> 0), practised (c, bool): arrays (n,). The likelihood of a prompt is replaced by
    a normal in x (its site: precision tau, precision times mean nu), such that x has the mean and the
    variance that the likelihood itself would give it beside everything else. Over all prompts at once, until
    nothing moves.
    """
    tau, nu = np.zeros(len(b.mean)), np.zeros(len(b.mean))
    now = common
    for _ in range(SWEEPS):
        told, shift = _told(tau, nu, b)
        all_of_it = now.of(practised)
        var = 1.0 / (1.0 / all_of_it.var - told)  # of the others: without what the prompt itself has told
        others = Normal(var * (all_of_it.mean / all_of_it.var - shift) - b.mean, var + b.var)
        x = moments(others, successes, rollouts)
        tau = np.maximum(1.0 / x.var - 1.0 / others.var, LEAST_PRECISION)
        nu = x.mean / x.var - others.mean / others.var
        before, now = now, _with(common, practised, *_told(tau, nu, b))
        if (np.abs(now.mean - before.mean) < SETTLED * np.sqrt(np.diag(now.cov))).all():
            break
    return now, _difficulties(now.of(practised), b, tau, nu)


def moments(x: Normal, successes: Floats, rollouts: Floats) -> Normal:
    """Mean and variance of x ~ N(mean, var) once s ~ Binomial(k, sigmoid(x)) is seen; arrays (n,)."""
    mode, var = _mode(x, successes, rollouts)
    at = mode + NODES[:, None] * np.sqrt(var)
    log = successes * at + rollouts * log_expit(-at) - 0.5 * (at - x.mean) ** 2 / x.var
    weight = WEIGHTS[:, None] * np.exp(log - log[len(NODES) // 2])
    weight /= weight.sum(axis=0)
    mean = (weight * at).sum(axis=0)
    return Normal(mean, (weight * (at - mean) ** 2).sum(axis=0))


def _mode(x: Normal, successes: Floats, rollouts: Floats) -> tuple[Floats, Floats]:
    """Where x is most likely, and one over the curvature there: Newton's method, a logit a step at most."""
    # It starts near: the mean, weighed against the empirical logit (Haldane 1956, Annals of Human Genetics
    # 20).
    right, wrong = successes + 0.5, rollouts - successes + 0.5
    weight = x.var * right * wrong / (right + wrong)
    mode = (x.mean + weight * np.log(right / wrong)) / (1.0 + weight)
    for _ in range(NEWTON_STEPS):
        p = expit(mode)
        var = x.var / (1.0 + x.var * rollouts * p * (1.0 - p))
        step = np.clip(var * ((x.mean - mode) / x.var + successes - rollouts * p), -1.0, 1.0)
        mode = mode + step
        if np.abs(step).max() < NEWTON_SETTLED:
            break
    return mode, var


def _told(tau: Floats, nu: Floats, b: Normal) -> tuple[Floats, Floats]:
    """What each site says of theta + c delta, b being unknown: precision, and precision times mean."""
    weight = 1.0 / (1.0 + tau * b.var)
    return tau * weight, (nu + tau * b.mean) * weight


def _with(common: Common, practised: Flags, told: Floats, shift: Floats) -> Common:
    """(theta, delta) by what was known and by what all sites say."""
    both = told @ practised
    precision = np.linalg.inv(common.cov)
    shifts = precision @ common.mean + np.array([shift.sum(), shift @ practised])
    cov = np.linalg.inv(precision + np.array([[told.sum(), both], [both, both]]))
    return Common(cov @ shifts, cov)


def _difficulties(able: Normal, b: Normal, tau: Floats, nu: Floats) -> Normal:
    """b by its site: the error of theta + c delta goes into its variance, the covariance is dropped."""
    var = b.var / (1.0 + tau * b.var)
    return Normal(var * (b.mean / b.var + tau * able.mean - nu), var + (var * tau) ** 2 * able.var)
