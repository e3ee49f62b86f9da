"""How well responses fit a model: infit and outfit, and likelihood-ratio comparison of nested models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc  # scipy.stats, which has it as chi2.sf, takes a second to import

from zpd_ray.irt import checks
from zpd_ray.irt.models import probability

Array = NDArray[np.float64]

CELLS = 1 << 20


@dataclass(frozen=True)
class MeanSquares:
    """Infit and outfit of one side (items or respondents), with their standardised forms. Shape (n,) each.

    Expected value 1; infit_z and outfit_z are about standard normal under the model.
    """

    infit: Array
    outfit: Array
    infit_z: Array
    outfit_z: Array


@dataclass(frozen=True)
class FitStatistics:
    """`fit_statistics`: mean squares of items (n_items,) and of respondents (n_respondents,)."""

    items: MeanSquares
    respondents: MeanSquares


def fit_statistics(
    responses: ArrayLike,
    theta: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    c: ArrayLike | None = None,
    *,
    trials: ArrayLike | None = None,
) -> FitStatistics:
    """Infit and outfit mean squares (Wright & Masters 1982, Rating Scale Analysis, chapter 5, table 5.4a).

    responses, trials: as in `ability`. theta: (n_respondents,), finite (use "wle" or "eap"). With residual
    z = (s - k p) / sqrt(v), v = k p q: outfit = mean z^2, infit = sum v z^2 / sum v; z forms by the cube-root
    transformation of Wilson and Hilferty. Respondents or items without responses get NaN.
    """
    s, k = checks.binary(responses) if trials is None else checks.counts(responses, trials)
    n, m = s.shape
    points = checks.vector("theta", theta, n)
    slopes, places, floors = checks.vector("a", a, m), checks.vector("b", b, m), checks.floor(c, m)
    by_item, by_row = np.zeros((6, m)), np.zeros((6, n))
    size = max(1, CELLS // n)
    for start in range(0, m, size):
        cut = slice(start, start + size)
        p = probability(points, slopes[cut], places[cut], floors[cut])
        sums = _sums(np.asarray(s[:, cut], float), np.asarray(k[:, cut], float), p)
        by_item[:, cut] = sums.sum(axis=1)
        by_row += sums.sum(axis=2)
    return FitStatistics(_mean_squares(by_item), _mean_squares(by_row))


def _sums(s: Array, k: Array, p: Array) -> Array:
    """Per response: 1, z^2, v, v z^2, kurtosis - 1 (of z^2) and the same weighted by v^2. (6, n, m)"""
    pq = np.maximum(p * (1.0 - p), 1e-12)
    v = np.maximum(k * pq, 1e-12)
    squared = np.where(k > 0, (s - k * p) ** 2, 0.0)
    # fourth central moment of a binomial: 3 v^2 + v (1 - 6 p q)
    excess = np.where(k > 0, 2.0 + (1.0 - 6.0 * pq) / v, 0.0)
    seen = (k > 0).astype(float)
    return np.stack([seen, squared / v, v * seen, squared, excess, excess * v**2])


def _mean_squares(sums: Array) -> MeanSquares:
    with np.errstate(invalid="ignore", divide="ignore"):
        count, z2, v, vz2, excess, weighted = sums
        outfit, infit = z2 / count, vz2 / v
        return MeanSquares(
            infit, outfit, _cube_root(infit, weighted / v**2), _cube_root(outfit, excess / count**2)
        )


def _cube_root(mean_square: Array, variance: Array) -> Array:
    sd = np.sqrt(np.maximum(variance, 1e-12))
    return np.asarray((np.cbrt(mean_square) - 1.0) * 3.0 / sd + sd / 3.0)


class Fitted(Protocol):
    """What a comparison needs of a fit: ItemFit, ExplanatoryFit and LLTMFit have it."""

    @property
    def loglik(self) -> float: ...
    @property
    def n_parameters(self) -> int: ...


@dataclass(frozen=True)
class Comparison:
    """Likelihood-ratio test of a restricted model within a general one: statistic, df, p; AIC of both."""

    statistic: float
    df: int
    p: float
    aic_restricted: float
    aic_general: float


def compare(restricted: Fitted, general: Fitted) -> Comparison:
    """Likelihood-ratio test of two nested models fitted to the same data by the same estimator.

    The statistic 2 (loglik_general - loglik_restricted) is chi-square with the difference of the numbers of
    parameters (Wilks 1938), when the restriction is not on the edge of the parameter space: for a residual
    sd of 0 the p given is twice the right one. Raises ValueError where the models cannot be nested.
    """
    df = general.n_parameters - restricted.n_parameters
    statistic = 2.0 * (general.loglik - restricted.loglik)
    if df <= 0:
        raise ValueError(
            f"the general model has {general.n_parameters} parameters, the restricted "
            f"{restricted.n_parameters}: "
            "not nested this way round; exchange the arguments."
        )
    kinds = [getattr(f, "estimator", "mml") for f in (restricted, general)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"likelihoods of estimators {kinds[0]!r} and {kinds[1]!r} are not comparable.")
    if statistic < -1e-3:
        raise ValueError(
            f"the general model has the lower log-likelihood ({general.loglik:.4f} < "
            f"{restricted.loglik:.4f}): the "
            "models are not nested, or were fitted to different data."
        )
    aic = [2.0 * (f.n_parameters - f.loglik) for f in (restricted, general)]
    return Comparison(max(statistic, 0.0), df, float(chdtrc(df, max(statistic, 0.0))), aic[0], aic[1])
