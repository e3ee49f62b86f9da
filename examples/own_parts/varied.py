"""A selection method: the zone, and in it references that do not repeat themselves."""

import numpy as np
from numpy.typing import NDArray

from zpd_ray.config import SelectConfig
from zpd_ray.selection import Candidates


class Varied:
    """p(1-p) times the share of words that differ, the largest first."""

    needs = ("distinct:Distinct",)  # measures beside the NLL and the responses, by name or import path
    zone = True  # what it takes from outside of the zone is called the nearest there was

    def score(self, items: Candidates, select: SelectConfig) -> NDArray[np.float64]:
        """NaN, as of a reference without a word: not to be selected."""
        distinct = items.measured["distinct:Distinct"]["distinct"].to_numpy()
        return items.zpd * distinct.astype(np.float64)
