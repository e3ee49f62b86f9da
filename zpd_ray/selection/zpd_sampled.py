"""ZPDScore as a chance and not an order: items are drawn, those of the zone more often."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zpd_ray.hashing import uniforms

if TYPE_CHECKING:
    from zpd_ray.config import SelectConfig
    from zpd_ray.selection.base import Candidates


class ZpdSampled:
    """Draws without replacement, each time in proportion to ZPDScore ^ (1 / temperature).

    The top of a score is a narrow band, in which items may be much alike; a draw reaches all over the zone.
    By the Gumbel-top-k trick (Kool et al. 2019, arXiv 1903.06059, section 2; the same draw as that of
    Efraimidis & Spirakis 2006, Information Processing Letters 97(5)) the draw is the top of a score, so that
    it needs no other item's. Not in the paper of ZPD Detector, which takes the top.
    """

    needs = ()

    def score(self, items: Candidates, select: SelectConfig) -> NDArray[np.float64]:
        """log(ZPDScore) / ``select.temperature`` + Gumbel noise by the item's id; -inf where it is 0."""
        noise = -np.log(-np.log(uniforms(items.item_hash)))
        with np.errstate(divide="ignore"):
            return np.log(items.zpd) / select.temperature + noise
