"""RHO-LOSS: what the model can still learn of an item (Mindermann et al. 2022, arXiv 2206.07137, eq. 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from zpd_ray.config import SelectConfig
    from zpd_ray.selection.base import Candidates


class Rho:
    """NLL under the model of the stage less that under a reference model: the reducible holdout loss.

    The reference (``select.reference_model``) was trained on held-out data of the same kind, which is the
    user's to do; as in the paper (algorithm 1) it stays as it is. The paper picks the top of a random batch
    before each step, this the top of the pool before each stage.
    """

    needs = ("reference",)

    def score(self, items: Candidates, select: SelectConfig) -> NDArray[np.float64]:
        """The difference of the response's NLLs, in nats per token of the model that is trained.

        Where the reference has another tokenizer, its NLL is brought to the same tokens by their numbers. NaN
        where one of the two is missing (the measure counts it). Negative: the reference finds it harder.
        """
        tokens = items.measured["answers"]["n_tokens"].to_numpy().astype(np.float64)
        theirs = items.measured["reference"]["n_tokens_reference"].to_numpy()
        with np.errstate(divide="ignore", invalid="ignore"):  # no tokens: not measured
            return items.nll() - items.nll("reference", "nll_reference") * (theirs / tokens)
