"""The maximum of the explanatory model's posterior over theta, gamma and, where it is free, log sigma."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zpd_ray.irt.newton import TOLERANCE, Maximum, maximise
from zpd_ray.irt.pool import curves, marginal
from zpd_ray.irt.pool.blocks import Latent
from zpd_ray.irt.pool.design import Design
from zpd_ray.irt.prior import Prior
from zpd_ray.irt.work import Work

Array = NDArray[np.float64]

SIGMA_MIN = 0.02  # logits; a residual sd below it cannot be told from none
SIGMA_MAX = 10.0  # logits; above it every response follows from the item alone, and the likelihood is flat
STEEPEST = 100.0  # logits per standard deviation of a covariate: it decides all responses by itself
FURTHEST = 1e4  # logits from the origin: a prior difficulty beyond it is a mistake of scale
# Items of a sample, whose maximum a pool of four times as many or more starts from: the most that are few
# enough. A sample has a sample of its own.
SAMPLES = (20_000, 1250)
STEADY = 20_000  # items whose curvature stands for that of the pool between the first step and the last
SAMPLE_FLOORS = 8  # of a sample: each is a grid of its own
# Slopes over sqrt(1 + this sigma^2) stay about the same (Zeger, Liang & Albert 1988, Biometrics 44(4)).
ATTENUATION = 0.346


@dataclass(frozen=True)
class Problem:
    """Data and prior: phi -> log posterior and derivatives. work: what that may take in all."""

    design: Design
    mean: Array
    precision: Array
    work: Work

    @property
    def n_respondents(self) -> int:
        return self.design.trials.shape[0]

    def likelihood(self, phi: Array, with_hessian: bool) -> tuple[float, Array, Array | None]:
        latent = Latent.of(phi, self.n_respondents)
        if curves.pays(self.design, latent):
            return curves.objective(self.design, phi, with_hessian)
        order = self.design.order(latent.gamma) if self.design.row is not None else None
        design = self.design if order is None else self.design.columns(order)
        return marginal.objective(design, phi, with_hessian, self.work)

    def __call__(self, phi: Array, with_hessian: bool) -> tuple[float, Array, Array | None]:
        value, gradient, hessian = self.likelihood(phi, with_hessian)
        away = phi - self.mean
        value -= 0.5 * float(self.precision @ away**2)
        if hessian is not None:
            hessian = hessian - np.diag(self.precision)
        return value, gradient - self.precision * away, hessian

    def sample(self, stride: int) -> Problem:
        """Every stride-th item, the prior weakened in proportion."""
        part = self.design.columns(slice(stride // 2, None, stride), SAMPLE_FLOORS)
        return replace(self, design=part, precision=self.precision / stride)


class Trail(NamedTuple):
    """phi at a maximum, and at the maximum of its sample, or where else it was looked for from."""

    x: Array
    sample: Array


def solve(
    problem: Problem, prior: Prior, identified: bool, near: Trail | None = None
) -> tuple[Maximum, list[str], Trail]:
    """Maximise over theta, gamma and, where it is identified and not fixed, log sigma.

    near: of the maximum with another prior of sigma, to start from: how far that was from its sample's tells
    how far this one will be.
    """
    flags = [] if identified else ["sigma_not_identified"]
    start, further = _start(problem, prior), None
    if near is not None:
        start = _rescaled(near.sample, np.log(prior.sigma_median))
        further = _rescaled(near.x, np.log(prior.sigma_median)) - start
    if not (identified and prior.sigma_log_sd > 0.0):
        start[-1] = np.log(prior.sigma_median)
        top, trail = _maximise(problem, start, further, free=False)
        return top, flags + ["sigma_fixed"] * identified, trail
    top, trail = _maximise(problem, start, further, free=True)
    if _inside(top.x):
        return top, flags, trail
    low = bool(top.x[-1] < np.log(SIGMA_MIN))
    edge = _rescaled(top.x, np.log(SIGMA_MIN if low else SIGMA_MAX))
    bound, trail = _maximise(problem, edge, free=False)
    pull = problem(bound.x, False)[1][-1]
    if (pull > 0.0) == low and pull != 0.0:  # a sample was drawn beyond the bound, all items are not
        top, trail_inside = _maximise(problem, start, free=True, sampled=False)
        if _inside(top.x):
            return top, flags, trail_inside
    return bound, [*flags, "sigma_at_lower_bound" if low else "responses_all_or_nothing"], trail


def _inside(phi: Array) -> bool:
    return bool(np.log(SIGMA_MIN) <= phi[-1] <= np.log(SIGMA_MAX))


def _maximise(
    problem: Problem, start: Array, further: Array | None = None, *, free: bool, sampled: bool = True
) -> tuple[Maximum, Trail]:
    """Newton; for large pools from a sample's maximum, and with the curvature of a large sample. Where the
    sample leads out of the bounds of sigma, that is all. further: what is added to where it would start.
    """
    curvature = None
    strides = [problem.design.n_items // size for size in SAMPLES]
    if stride := next((stride for stride in strides if stride >= 4 and sampled), 0):
        small = problem.sample(stride)
        if not np.any((small.design.totals == 0) | (small.design.totals == small.design.possible)):
            top, _ = _maximise(small, start, free=free)
            start = top.x
            if free and not _inside(top.x):
                return top, Trail(start, start)
            if small.design.n_items >= STEADY and top.converged:
                curvature = top.hessian * stride
    sample = start
    start = start if further is None else start + further
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
    top = maximise(
        objective,
        start[:size],
        curvature=curvature,
        tolerance=tolerance,
        outside=outside,
        work=problem.work,
    )
    top = replace(top, x=np.append(top.x, start[size:]))
    return top, Trail(top.x, sample)


def _start(problem: Problem, prior: Prior) -> Array:
    d = problem.design
    floor = sum(c * float(d.freq[columns].sum()) for c, columns in d.floors) / d.freq.sum()
    p = np.clip((d.totals + 0.5) / (d.possible + 1.0), floor + 0.02 * (1.0 - floor), None)
    p = np.clip((p - floor) / (1.0 - floor), 1e-4, 1.0 - 1e-4)
    sigma = float(np.clip(prior.sigma_median, 0.3, 2.0))
    start = np.concatenate([np.log(p / (1.0 - p)), np.zeros(d.covariates.shape[1]), [np.log(sigma)]])
    share = problem.precision / (1.0 + problem.precision)
    return start + share * (problem.mean - start)


def _rescaled(phi: Array, log_sigma: float) -> Array:
    """About where the maximum goes to with another sigma: as far as shares right stay what they are."""
    before, after = 1.0 + ATTENUATION * np.exp(2.0 * np.array([phi[-1], log_sigma]))
    return np.append(phi[:-1] * np.sqrt(after / before), log_sigma)
