"""Responses with known truth, for every model of the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zpd_ray.irt import checks
from zpd_ray.irt.models import probability

Array = NDArray[np.float64]
SimulatedModel = Literal["rasch", "1pl", "2pl", "3pl"]


@dataclass(frozen=True)
class Simulation:
    """Responses and the truth behind them.

    successes, trials: (n_respondents, n_items) int8 (int16 above 127 trials), trials 0 where missing. theta:
    (n_respondents,). group_theta: (n_respondents, n_groups), the ability that acted on the items of each
    group. a, b, c: (n_items,). covariates: (n_items, n_covariates), b = covariates @ gamma + sigma e, e ~
    N(0, 1). person_covariates: (n_respondents, n), theta = person_covariates @ person_gamma + theta_sd e.
    groups: (n_items,) int64.
    """

    successes: NDArray[np.signedinteger]
    trials: NDArray[np.signedinteger]
    theta: Array
    group_theta: Array
    a: Array
    b: Array
    c: Array
    covariates: Array
    gamma: Array
    sigma: float
    person_covariates: Array
    person_gamma: Array
    groups: NDArray[np.int64]

    @property
    def responses(self) -> NDArray[np.signedinteger]:
        """0, 1, and -1 for missing, int8. ValueError where a response has several trials."""
        if self.trials.max() > 1:
            raise ValueError("responses with several trials are counts: use successes and trials.")
        return np.where(self.trials == 0, np.int8(-1), self.successes)


def simulate(
    n_respondents: int,
    n_items: int,
    model: SimulatedModel = "rasch",
    *,
    seed: int = 0,
    theta_sd: float = 1.0,
    gamma: Sequence[float] = (),
    sigma: float = 1.0,
    person_gamma: Sequence[float] = (),
    guess: ArrayLike | None = None,
    trials: int = 1,
    missing: float = 0.0,
    n_groups: int = 1,
    group_sd: float = 0.0,
) -> Simulation:
    """Draw abilities, items and responses.

    theta ~ N(person covariates @ person_gamma, theta_sd^2) and b ~ N(covariates @ gamma, sigma^2), covariates
    standard normal; without gamma, b ~ N(0, sigma^2): the Rasch model and the explanatory models. Slopes:
    1 for "rasch", 1.2 for "1pl", log-normal(0, 0.3) for "2pl" and "3pl"; c = guess, for "3pl" by default
    Beta(5, 17). trials: rollouts per response. missing: share of responses missing completely at random.
    n_groups, group_sd: items fall at random into groups, each with its own ability theta + N(0, group_sd^2).
    """
    if min(n_respondents, n_items, trials, n_groups) < 1 or not 0.0 <= missing < 1.0:
        raise ValueError(
            "simulate needs n_respondents, n_items, trials, n_groups >= 1 and 0 <= missing < 1, got "
            f"{n_respondents}, {n_items}, {trials}, {n_groups}, {missing}."
        )
    if model not in ("rasch", "1pl", "2pl", "3pl"):
        raise ValueError(f"model must be 'rasch', '1pl', '2pl' or '3pl', got {model!r}.")
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_items, len(gamma)))
    w = rng.standard_normal((n_respondents, len(person_gamma)))
    theta = w @ np.asarray(person_gamma, float).reshape(-1) + theta_sd * rng.standard_normal(n_respondents)
    b = x @ np.asarray(gamma, float).reshape(-1) + sigma * rng.standard_normal(n_items)
    a = {"rasch": np.ones(n_items), "1pl": np.full(n_items, 1.2)}.get(model)
    if a is None:
        a = np.exp(0.3 * rng.standard_normal(n_items))
    c = rng.beta(5.0, 17.0, n_items) if model == "3pl" and guess is None else checks.floor(guess, n_items)
    groups = rng.integers(0, n_groups, n_items)
    group_theta = theta[:, None] + group_sd * rng.standard_normal((n_respondents, n_groups))
    dtype = np.min_scalar_type(-trials - 1)
    s, k = np.zeros((n_respondents, n_items), dtype), np.zeros((n_respondents, n_items), dtype)
    for row in range(n_respondents):  # by row: a pool of millions needs no float matrix of its size
        p = probability(0.0, a, b - group_theta[row, groups], c)
        k[row] = trials * (rng.random(n_items) >= missing)
        s[row] = rng.random(n_items) < p if trials == 1 else rng.binomial(trials, p)
        s[row] *= k[row] > 0
    gamma_array, person_array = np.asarray(gamma, float), np.asarray(person_gamma, float)
    return Simulation(s, k, theta, group_theta, a, b, c, x, gamma_array, sigma, w, person_array, groups)
