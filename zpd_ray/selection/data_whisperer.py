"""Data Whisperer: what an item does for others as a demonstration (Wang et al. 2025, arXiv 2505.12212)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from zpd_ray.config import SelectConfig
    from zpd_ray.selection.base import Candidates


class DataWhisperer:
    """The model's few-shot accuracy after an item, times the share of its attention there, the highest first.

    Of n demonstrations and m questions: s_i = 1/m sum_j f_j w_ij, f_j being the share right of question j by
    the run's grader, and w_ij the attention of the question's tokens to those of demonstration i in one
    layer, summed over heads and per pair of tokens, over that of all n. The authors ask all questions in one
    prompt and read their answers out of one completion; here each has a prompt of its own, so that it is
    graded like any other answer, and one without an answer counts as wrong by itself. They put a set of
    questions aside or take turns; here the questions are items of the pool that follow the demonstrations
    in a drawn order.
    """

    needs = ("in_context",)

    def score(self, items: Candidates, select: SelectConfig) -> NDArray[np.float64]:
        """From 0 to 1; NaN where no question could be asked after the item (the measure counts it)."""
        return items.nll("in_context", "utility")
