"""A judge: what a language model thinks of an item, the best first (AlpaGasus, arXiv 2307.08701)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from zpd_ray.config import SelectConfig
    from zpd_ray.selection.base import Candidates


class Judge:
    """The rating that the judge gives an item: of AlpaGasus 0 to 5, for the accuracy of the response.

    Its authors keep what is rated 4.5 and more; here the budget takes the best, and a hash of the ids draws
    among equals, of which there are many. The question is ``select.judge.prompt``; the judge does not change
    from stage to stage.
    """

    needs = ("judge",)

    def score(self, items: Candidates, select: SelectConfig) -> NDArray[np.float64]:
        """The rating; NaN where the judge gave none that could be read (counted as unparsed)."""
        return items.nll("judge", "rating")
