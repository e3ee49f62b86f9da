"""ZPDScore: items that the model gets right about half of the time (arXiv 2601.10986)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from zpd_ray.config import SelectConfig
    from zpd_ray.selection.base import Candidates


class Zpd:
    """Looks at ability and difficulty, which follow from ``answers``."""

    needs = ()
    zone = True

    def score(self, items: Candidates, select: SelectConfig) -> NDArray[np.float64]:
        """Expected p(1-p), or Fisher information (``select.criterion``), over the posterior of b."""
        return items.zpd
