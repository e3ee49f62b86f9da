"""A selection method that gives no item a score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zpd_ray.config import SelectConfig
from zpd_ray.selection import Candidates


def score(items: Candidates, select: SelectConfig) -> NDArray[np.float64]:
    return np.full(len(items.item_hash), np.nan)
