"""Item response theory for many items and few respondents, and the other way round. numpy and scipy only.

Everything is in logits, P(right) = c + (1 - c) sigmoid(a (theta - b)). Responses are matrices of shape
(n_respondents, n_items) holding 0, 1 and NaN (or -1 in integer arrays) for missing; counts of rollouts are a
pair of matrices, successes and trials.

>>> from zpd_ray import irt
>>> truth = irt.simulate(500, 20, "2pl", seed=1)
>>> fit = irt.fit(truth.responses, "2pl")
>>> who = irt.ability(truth.responses, fit.a, fit.b, estimator="wle")
>>> irt.fit_statistics(truth.responses, who.theta, fit.a, fit.b).items.infit.shape
(20,)

Few respondents on very many items (stages and models against a pool), difficulties random, with covariates:

>>> pool = irt.simulate(4, 5000, gamma=(0.8,), sigma=0.6, trials=3, seed=2)
>>> fit = irt.fit_explanatory(pool.successes, pool.trials, pool.covariates)
>>> fit.converged, fit.b_mean.shape
(True, (5000,))
"""

from zpd_ray.irt.matrix.ability import Ability, ability
from zpd_ray.irt.matrix.fit_statistics import Comparison, FitStatistics, MeanSquares, compare, fit_statistics
from zpd_ray.irt.matrix.item_fit import ItemFit
from zpd_ray.irt.matrix.items import fit
from zpd_ray.irt.matrix.regression import LLTMFit, PersonFit, fit_lltm, fit_persons
from zpd_ray.irt.models import information, probability
from zpd_ray.irt.pool.counts import Counts
from zpd_ray.irt.pool.explanatory import ExplanatoryFit, fit_explanatory, posterior_difficulty
from zpd_ray.irt.prior import Prior
from zpd_ray.irt.simulate import Simulation, simulate
from zpd_ray.irt.stages.concurrent import StagesFit, fit_stages
from zpd_ray.irt.stages.groups import GroupAbility, group_abilities
from zpd_ray.irt.stages.linking import GroupDrift, Link, ResponseDrift, link, response_drift
from zpd_ray.irt.stages.probes import ProbeBank, enough

__all__ = [
    "Ability",
    "Comparison",
    "Counts",
    "ExplanatoryFit",
    "FitStatistics",
    "GroupAbility",
    "GroupDrift",
    "ItemFit",
    "LLTMFit",
    "Link",
    "MeanSquares",
    "PersonFit",
    "Prior",
    "ProbeBank",
    "ResponseDrift",
    "Simulation",
    "StagesFit",
    "ability",
    "compare",
    "enough",
    "fit",
    "fit_explanatory",
    "fit_lltm",
    "fit_persons",
    "fit_stages",
    "fit_statistics",
    "group_abilities",
    "information",
    "link",
    "posterior_difficulty",
    "probability",
    "response_drift",
    "simulate",
]
