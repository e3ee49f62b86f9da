"""Superfiltering: IFD as a ratio of perplexities, by a small proxy (Li et al. 2024, arXiv 2402.00530)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from zpd_ray.config import SelectConfig
    from zpd_ray.selection.base import Candidates


class Superfiltering:
    """PPL(y|x) / PPL(y) of the model that ``select.proxy`` names, the highest below 1 first.

    Section 2 defines the ratio, and the authors' code keeps what is below 1 (tianyi-lab/Superfiltering,
    code_ifd/select_data.py). The proxy is never trained: its ratios are the same at every stage.
    """

    needs = ("proxy",)

    def score(self, items: Candidates, select: SelectConfig) -> NDArray[np.float64]:
        """The ratio; NaN from 1 on, and where one of the two is missing (the measure counts it)."""
        ratio = np.exp(items.nll("proxy", "nll_proxy") - items.nll("proxy", "nll_proxy_alone"))
        return np.where(ratio < 1, ratio, np.nan)
