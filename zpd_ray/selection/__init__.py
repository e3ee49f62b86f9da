"""Selection methods: what each makes of an item's difficulty is a score between 0 and ``upper``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zpd_ray.config import SelectConfig
from zpd_ray.selection import random, zpd


@dataclass(frozen=True)
class Candidates:
    """Arrays of shape (n,) that a method may look at, and the ability of the stage."""

    theta: float
    item_hash: NDArray[np.uint64]  # seeded: a different one for each run seed and stage
    b: NDArray[np.float64]  # posterior mean, logits
    b_sd: NDArray[np.float64]  # posterior sd, logits
    guess: NDArray[np.float64]  # probability


@dataclass(frozen=True)
class Method:
    """A score per item, the larger the sooner selected, and its upper bound (the lower is 0)."""

    score: Callable[[Candidates, SelectConfig], NDArray[np.float64]]
    upper: float


METHODS = {"zpd": Method(zpd.score, zpd.UPPER), "random": Method(random.score, random.UPPER)}
