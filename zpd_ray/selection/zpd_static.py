"""ZPDScore by what stage 0 measured, at every stage: what measuring again is worth is the gap to ``zpd``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zpd_ray.selection.zpd import Zpd

if TYPE_CHECKING:
    from zpd_ray.config import SelectConfig
    from zpd_ray.selection.base import Candidates


class ZpdStatic(Zpd):
    """theta, difficulties and scores of stage 0; later stages go on in its order of rank."""

    static, zone = True, False  # the zone of now is not what it looks for

    def score(self, items: Candidates, select: SelectConfig) -> NDArray[np.float64]:
        """As ``zpd``; NaN where stage 0 could not measure the item (which it has counted)."""
        return np.where(np.isnan(items.nll()), np.nan, super().score(items, select))
