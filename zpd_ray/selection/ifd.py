"""IFD: how little the prompt helps with the response (Cherry, Li et al. 2024, arXiv 2308.12032, eq. 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from zpd_ray.config import SelectConfig
    from zpd_ray.selection.base import Candidates


class Ifd:
    """NLL of the response after its prompt over that of the response alone, the highest up to 1 first.

    Above 1 the prompt makes the response harder: the two do not fit together, and the item is left out (as
    in tianyi-lab/Cherry_LLM, data_by_IFD.py). The paper asks a model that was first trained briefly on some
    of the samples ("pre-experienced"); here it is the model of the stage.
    """

    needs = ("alone",)

    def score(self, items: Candidates, select: SelectConfig) -> NDArray[np.float64]:
        """The ratio; NaN above 1, where one of the two is missing (the measure counts it), and for 0 / 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = items.nll() / items.nll("alone", "nll_alone")
        return np.where(ratio <= 1, ratio, np.nan)
