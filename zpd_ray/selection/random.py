"""A uniform draw without replacement: the baseline that every other method must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from zpd_ray.config import SelectConfig
    from zpd_ray.selection.base import Candidates


class Random:
    """Looks at nothing."""

    needs, blind = (), True

    def score(self, items: Candidates, select: SelectConfig) -> NDArray[np.float64]:
        """The seeded hash of the item's id as a number in [0, 1)."""
        return (items.item_hash >> np.uint64(11)).astype(np.float64) * 2.0**-53
