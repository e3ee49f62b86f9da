"""Newton's method for the log-likelihoods of this package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from zpd_ray.irt.work import TooMuchWorkError, Work

Array = NDArray[np.float64]
# objective(x, with_hessian) -> value, gradient, Hessian (None unless asked for)
Objective = Callable[[Array, bool], tuple[float, Array, Array | None]]

MAX_STEP = 2.0  # logits; a longer Newton step has left the region where the quadratic model holds
FLAT = 8.0  # times as long as may be: a step along what the data say nothing of
BISECTIONS = 6
HALVINGS = 16  # of a step; where one of 2 logits over 2^16 does not lead up, rounding hides what does
LONGEST_STEP = 16.0  # where steps of that length have led up, one after the other
# The root of g' (-H)^-1 g is the length of the step still to go, in standard errors.
TOLERANCE = 1e-6
# From here one Newton step ends at rounding (its error is of the order of the square), and moves the
# Hessian by less than a relative 1e-4: it is not computed again.
LAST_STEP = 1e-4
# The same for a step in logits, where there are so many responses that a standard error is hardly longer.
LAST_LOGITS = 1e-5
PRODUCT = 2.6e-5  # about what one product of two numbers takes in solving for a step, in microseconds
SMALL = 1e-3  # a gradient above this many standard errors is no maximum, whatever the steps looked like
LAST_STEP_SAMPLED = 5e-2  # the same for data so many that a sample gives the curvature: closer to quadratic


@dataclass(frozen=True)
class Maximum:
    """Where an optimisation stopped: point, value, gradient, Hessian there, and whether it converged."""

    x: Array
    value: float
    gradient: Array
    hessian: Array
    converged: bool
    n_iterations: int

    @property
    def grad_norm(self) -> float:
        """Largest absolute element of the gradient."""
        return float(np.max(np.abs(self.gradient), initial=0.0))

    def covariance(self) -> Array:
        """Inverse of the negative Hessian; all NaN where that is not positive definite."""
        size = self.gradient.size
        if size == 0:
            return np.zeros((0, 0))
        try:
            factor = cho_factor(-self.hessian)
        except np.linalg.LinAlgError:
            return np.full_like(self.hessian, np.nan)
        return np.asarray(cho_solve(factor, np.eye(size)))


def ascent_step(
    gradient: Array, hessian: Array, reach: float = MAX_STEP, work: Work | None = None
) -> tuple[Array, float]:
    """Newton step, no element above `reach`, and its length in standard errors; the Hessian is damped until
    it is negative definite. work: what it may take; None: whatever it takes.
    """
    if gradient.size == 0:
        return gradient, 0.0
    scale = np.abs(np.diag(hessian)).max() + 1e-12
    damping = 0.0
    work = work or Work(np.inf)
    while (step := _damped(gradient, hessian, damping, work)) is None:
        damping = max(10.0 * damping, 1e-4 * scale)
    decrement = max(float(gradient @ step), 0.0) ** 0.5
    if np.abs(step).max() > FLAT * reach:
        step = _shortened(gradient, hessian, damping, reach, step, work)
    return step * min(1.0, reach / max(float(np.abs(step).max()), 1e-300)), decrement


def _shortened(
    gradient: Array, hessian: Array, damping: float, reach: float, step: Array, work: Work
) -> Array:
    """A step in which a direction that hardly changes anything does not keep the others from moving: damped
    about as little as brings it under `reach` (Levenberg 1944, Quarterly of Applied Mathematics 2).
    """
    high = float(np.abs(gradient).max()) / reach
    low = max(damping, 1e-12 * high)
    for _ in range(BISECTIONS):
        middle = float(np.sqrt(low * high))
        tried = _damped(gradient, hessian, middle, work)
        if tried is not None and np.abs(tried).max() <= reach:
            step, high = tried, middle
        else:
            low = middle
    return step


def _damped(gradient: Array, hessian: Array, damping: float, work: Work) -> Array | None:
    """Newton's step; None where the damped Hessian is not negative definite."""
    work.add(PRODUCT * gradient.size**3 / 3.0)
    try:
        factor = cho_factor(damping * np.eye(gradient.size) - hessian)
    except np.linalg.LinAlgError:
        return None
    return np.asarray(cho_solve(factor, gradient))


def maximise(
    objective: Objective,
    start: Array,
    *,
    curvature: Array | None = None,
    tolerance: float = TOLERANCE,
    max_iterations: int = 50,
    outside: Callable[[Array], bool] = lambda x: False,
    work: Work | None = None,
) -> Maximum:
    """Newton with step halving until the step left is under `tolerance` standard errors.

    `outside`: where the search ends, not converged: it has left the region where a maximum means something.

    `curvature`, when given, is a close approximation of the Hessian at the maximum (from a sample of the
    data): it replaces the Hessian while it contracts the steps fast, by a steady factor. The exact Hessian
    is computed once, where the next step promises to be short, and gives the last step.

    work: what solving for the steps may take; None: whatever it takes. Where that or the objective raises
    TooMuchWorkError, the best place so far, not converged; if there is none, the
    error.
    """
    kept = _Kept(objective)
    try:
        return _climb(kept, start, curvature, tolerance, max_iterations, outside, work)
    except TooMuchWorkError:
        if kept.best is None:
            raise
        return kept.best


class _Kept:
    """An objective that remembers the best place of which it has told the Hessian."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.best: Maximum | None = None
        self.calls = 0

    def __call__(self, x: Array, with_hessian: bool) -> tuple[float, Array, Array | None]:
        value, gradient, hessian = self.objective(x, with_hessian)
        self.calls += 1
        if hessian is not None and (self.best is None or value >= self.best.value):
            self.best = Maximum(x.copy(), value, gradient, hessian, False, self.calls)
        return value, gradient, hessian


def _climb(
    objective: Objective,
    start: Array,
    curvature: Array | None,
    tolerance: float,
    max_iterations: int,
    outside: Callable[[Array], bool],
    work: Work | None,
) -> Maximum:
    x = np.array(start, dtype=np.float64)
    value, gradient, hessian = objective(x, curvature is None)
    previous, last_step, reach = np.inf, LAST_STEP, MAX_STEP
    for iteration in range(max_iterations):
        step, decrement = ascent_step(
            gradient, np.asarray(hessian if curvature is None else curvature), reach, work
        )
        if curvature is not None and decrement > 0.3 * previous:  # a poor approximation: do without
            curvature = None
            value, gradient, hessian = objective(x, True)
            step, decrement = ascent_step(gradient, np.asarray(hessian), work=work)
        if decrement < tolerance:
            return _finish(objective, x, (value, gradient, hessian), True, iteration)
        short = decrement < last_step or (decrement < 0.1 and np.abs(step).max(initial=0.0) < LAST_LOGITS)
        if curvature is None and short:
            x = x + step
            value, gradient, _ = objective(x, False)
            if _small(gradient, np.asarray(hessian)):
                return Maximum(x, value, gradient, np.asarray(hessian), True, iteration + 1)
            value, gradient, hessian = objective(x, True)
            continue
        if (
            curvature is not None
            and np.isfinite(previous)
            and decrement**2 / previous < 0.2 * LAST_STEP_SAMPLED
        ):
            curvature, last_step = None, LAST_STEP_SAMPLED
        previous = decrement
        moved = _halve(objective, x, step, value, gradient, curvature is None)
        if moved is None:  # rounding has the last word: no step improves the value any more
            return _finish(objective, x, (value, gradient, hessian), decrement < 1e3 * tolerance, iteration)
        # A maximum far off, as of responses that nearly separate, is reached by steps twice as long each.
        whole = bool(np.abs(moved[0] - x).max() > 0.99 * reach)
        reach = min(2.0 * reach, LONGEST_STEP) if whole else MAX_STEP
        x, value, gradient, hessian = moved
        if outside(x):
            break
    return _finish(objective, x, (value, gradient, hessian), False, max_iterations)


def _halve(
    objective: Objective, x: Array, step: Array, value: float, gradient: Array, with_hessian: bool
) -> tuple[Array, float, Array, Array | None] | None:
    slack = 1e-12 * (1.0 + abs(value))
    for halving in range(HALVINGS):
        size = 0.5**halving
        trial = x + size * step
        new_value, new_gradient, new_hessian = objective(trial, with_hessian)
        if np.isfinite(new_value) and new_value >= value + 1e-4 * size * float(gradient @ step) - slack:
            return trial, new_value, new_gradient, new_hessian
    return None


def _finish(
    objective: Objective,
    x: Array,
    state: tuple[float, Array, Array | None],
    converged: bool,
    n_iterations: int,
) -> Maximum:
    value, gradient, hessian = state
    if hessian is None:
        value, gradient, hessian = objective(x, True)
    converged = converged and _small(gradient, np.asarray(hessian))
    return Maximum(x, value, gradient, np.asarray(hessian), converged, n_iterations)


def _small(gradient: Array, hessian: Array) -> bool:
    """Whether each parameter, moved alone, has less than SMALL of its own standard error to go."""
    curvature = np.sqrt(np.maximum(np.abs(np.diag(hessian)), 1e-12))
    return bool((np.abs(gradient) <= SMALL * np.maximum(curvature, 1e-3)).all())
