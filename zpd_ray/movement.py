"""How far items have moved since they were last asked, by new responses: each on its own, and together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit, logsumexp

from zpd_ray.irt.quadrature import HERMITE_NODES, HERMITE_WEIGHTS
from zpd_ray.matching import probability

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Loss = Callable[[float, float], float]  # of shift and moved

# Of the half-normal prior of ``moved`` and of the normal prior of a shift: sd, and where it ends; logits.
MOVED_SD, MOVED_MAX = 1.0, 4.0
SHIFT_SD, SHIFT_MAX = 3.0, 12.0
STEP = 0.02  # of the second differences that tell the error of a shift


class Asked(NamedTuple):
    """n items that were asked: responses, floor of guessing, difficulty as predicted, group. Arrays (n,).

    b, b_sd: mean and sd of the prediction before this stage, logits, on the scale of theta.
    """

    successes: Integers
    rollouts: Integers
    guess: Floats
    b: Floats
    b_sd: Floats
    group: NDArray[np.str_]

    def take(self, rows: Flags) -> Asked:
        """Those where ``rows``, bool (n,), is true."""
        s, k, guess, b, b_sd, group = self
        return Asked(s[rows], k[rows], guess[rows], b[rows], b_sd[rows], group[rows])

    def widened(self, moved: float) -> Asked:
        """As predicted when each has moved on its own with this sd."""
        return self._replace(b_sd=np.sqrt(self.b_sd**2 + moved**2))

    def shifted(self, shift: float) -> Asked:
        """As predicted when all have become harder by so many logits."""
        return self._replace(b=self.b + shift)


class Shift(NamedTuple):
    """Mean change of difficulty of some items, its standard error, and the sd of each on its own; logits."""

    shift: float
    se: float
    moved: float


def p_at_nodes(asked: Asked, theta: float) -> Floats:
    """P(right) at the nodes of Gauss-Hermite quadrature over b: (n, 21)."""
    return probability(theta, asked.b[:, None] + asked.b_sd[:, None] * HERMITE_NODES, asked.guess[:, None])


def estimate_moved(asked: Asked, theta: float) -> float:
    """sd of what items move on their own, in logits, >= 0: by maximum posterior likelihood.

    s ~ Binomial(k, P(theta, b)), b ~ N(predicted b, its variance + moved^2), and a half-normal prior of sd
    ``MOVED_SD``, by 21-point Gauss-Hermite quadrature and Brent's method.
    """
    from scipy.optimize import minimize_scalar  # which takes time to import

    if len(asked.b) == 0:
        return 0.0

    def loss(moved: float) -> float:
        return _loss(asked, theta, 0.0, moved)

    found = minimize_scalar(loss, bounds=(0.0, MOVED_MAX), method="bounded", options={"xatol": 1e-4})
    return 0.0 if loss(0.0) <= found.fun + 1e-9 else float(found.x)


def estimate_shift(asked: Asked, theta: float) -> Shift:
    """How much harder items have become together, and what each moved besides: by maximum posterior.

    As ``estimate_moved``, with b ~ N(predicted b + shift, ...) and a normal prior of sd ``SHIFT_SD``. Both
    together, because a few that moved far and many that stayed are not all that moved a little. The standard
    error is the curvature's, ``moved`` estimated with it. n = 0: the prior.
    """
    from scipy.optimize import minimize

    if len(asked.b) == 0:
        return Shift(0.0, SHIFT_SD, 0.0)

    def loss(shift: float, moved: float) -> float:
        return _loss(asked, theta, shift, moved)

    def of_both(x: Floats) -> float:
        return loss(float(x[0]), float(x[1]))

    bounds = [(-SHIFT_MAX, SHIFT_MAX), (0.0, MOVED_MAX)]
    found: Any = minimize(of_both, (0.0, MOVED_SD), bounds=bounds)
    shift, moved = found.x.tolist()
    return Shift(shift, _standard_error(loss, shift, moved), moved)


def _standard_error(loss: Loss, shift: float, moved: float) -> float:
    """Of the shift, ``moved`` not known either: by second differences of minus the log posterior density."""
    moved = max(moved, STEP)  # there is nothing below 0
    at = np.array([[loss(shift + i * STEP, moved + j * STEP) for j in (-1, 0, 1)] for i in (-1, 0, 1)])
    of_shift, of_moved = (line[0] - 2.0 * line[1] + line[2] for line in (at[:, 1], at[1]))
    both = (at[2, 2] - at[2, 0] - at[0, 2] + at[0, 0]) / 4.0
    curvature = (of_shift - (both**2 / of_moved if of_moved > 0 else 0.0)) / STEP**2
    return float(1.0 / np.sqrt(max(curvature, 1.0 / SHIFT_SD**2)))


def _loss(asked: Asked, theta: float, shift: float, moved: float) -> float:
    """Minus the log posterior density, but for a constant; in logs, for predictions that were far off."""
    sd = np.sqrt(asked.b_sd**2 + moved**2)[:, None]
    x, c = theta - asked.b[:, None] - shift - sd * HERMITE_NODES, asked.guess[:, None]
    s, k = asked.successes[:, None], asked.rollouts[:, None]
    right = np.log1p(-c) + log_expit(x)
    right = right if not c.any() else np.logaddexp(np.log(np.maximum(c, 1e-300)), right)
    likelihood = logsumexp(s * right + (k - s) * (np.log1p(-c) + log_expit(-x)), axis=1, b=HERMITE_WEIGHTS)
    prior = 0.5 * (moved / MOVED_SD) ** 2 + 0.5 * (shift / SHIFT_SD) ** 2
    return float(prior - likelihood.sum())
