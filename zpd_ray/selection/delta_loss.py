"""Delta loss: what the last stage of training has moved, the largest fall of the NLL first.

Graves et al. 2017 (arXiv 1704.03003, section 3.1) give a task the more often the more its loss falls by
training: the prediction gain L(x, before) - L(x, after), and the self-prediction gain where x is another
sample than those that were trained on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from zpd_ray.config import SelectConfig
    from zpd_ray.selection.base import Candidates


class DeltaLoss:
    """NLL under the model of an earlier stage less that under the model of now: learnability, as it was seen.

    ``select.delta_since``: the stage before, or the base model. An item that was not trained on tells what
    training on others has done for it. With ``select.delta_by = "group"`` an item has the mean of its group,
    over items that were never trained on: the self-prediction gain, and within a group a draw. At stage 0
    nothing has moved: all items are equal, and drawn. The paper has a bandit choose among a few tasks before
    each step; here what gained most is the next stage's.
    """

    needs = ()
    compares = True
    needs_reference = True  # a prompt is never trained on: how its own NLL moves is no learning

    def score(self, items: Candidates, select: SelectConfig) -> NDArray[np.float64]:
        """The fall in nats per token, negative where the NLL rose; 0 at stage 0; NaN where one is missing."""
        if items.nll_before is None:
            return np.zeros(len(items.item_hash))
        fall = items.nll_before - items.nll()
        if items.fall_of_group is None:
            return fall
        return np.where(np.isnan(fall), np.nan, items.fall_of_group)
