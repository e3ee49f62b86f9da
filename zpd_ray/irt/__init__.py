"""Item response theory for many items and few respondents, and the other way round. numpy and scipy only.

>>> import numpy as np
>>> from zpd_ray import irt
>>> b = np.array([-1.0, 0.0, 1.0])
>>> irt.ability([[1, 1, 0]], a=1.0, b=b, estimator="map").theta.round(3)
array([0.381])
"""

from zpd_ray.irt.ability import Ability, ability
from zpd_ray.irt.counts import Counts
from zpd_ray.irt.explanatory import ExplanatoryFit, Prior, fit_explanatory, posterior_difficulty
from zpd_ray.irt.models import information, probability

__all__ = [
    "Ability",
    "Counts",
    "ExplanatoryFit",
    "Prior",
    "ability",
    "fit_explanatory",
    "information",
    "posterior_difficulty",
    "probability",
]
