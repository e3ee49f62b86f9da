"""Everything, as far as the budget goes: with budget = { fraction = 1.0 } and one stage, the whole pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from zpd_ray.config import SelectConfig
    from zpd_ray.selection.base import Candidates


class Full:
    """Looks at nothing. Items are equal: what a smaller budget takes of them is drawn by their hash."""

    needs, blind = (), True

    def score(self, items: Candidates, select: SelectConfig) -> NDArray[np.float64]:
        """1 for every item."""
        return np.ones(len(items.item_hash))
