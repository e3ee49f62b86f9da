"""PUDF: items whose difficulty lies in a window around ability (Meng et al. 2024, arXiv 2408.05326)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from zpd_ray.config import SelectConfig
    from zpd_ray.selection.base import Candidates


class DifficultyWindow:
    """theta + window_low <= b <= theta + window_high, all items inside being equal.

    Section 4.3, DDS-MAE. The defaults, no lower bound and 0 above, are those of the authors' code
    (nd-ball/cl-irt, ``lower_bound``, ``upper_bound``). There b comes from an artificial crowd of models, and
    an epoch trains on all that is inside; here b is that of the fit, and the budget draws from what is inside
    by hash. Where too few are inside their code takes the easiest or the nearest; this one takes none
    outside, and the run says how many were left to select.
    """

    needs = ()

    def score(self, items: Candidates, select: SelectConfig) -> NDArray[np.float64]:
        """1 inside, both ends included; NaN outside."""
        low = -np.inf if select.window_low is None else select.window_low
        inside = (items.b >= items.theta + low) & (items.b <= items.theta + select.window_high)
        return np.where(inside, 1.0, np.nan)
