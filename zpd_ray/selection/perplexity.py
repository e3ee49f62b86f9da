"""Perplexity under the model of the stage: the highest, the lowest, or what is nearest to the middle.

Perplexity is exp of the mean NLL of the response tokens. Marion et al. 2023 (arXiv 2309.04564) keep the top,
middle or bottom of a pretraining corpus by it, Ankner et al. 2024 (arXiv 2405.20541) high, medium or low.
They measure all of a text with a reference model; here it is the response after its prompt, with the model of
the stage. An item without an NLL is not selected (``answers`` counts it as failed). Prompts alone have no
response to be surprised by, and how common their own words are is another question: they are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from zpd_ray.config import SelectConfig
    from zpd_ray.selection.base import Candidates


class PplHigh:
    """The most surprising first: hard items, and wrong references."""

    needs = ()
    needs_reference = True

    def score(self, items: Candidates, select: SelectConfig) -> NDArray[np.float64]:
        """exp(NLL), at least 1."""
        return np.exp(items.nll())


class PplLow:
    """The least surprising first."""

    needs = ()
    needs_reference = True

    def score(self, items: Candidates, select: SelectConfig) -> NDArray[np.float64]:
        """-exp(NLL)."""
        return -np.exp(items.nll())


class PplMiddle:
    """The nearest to the median that the pool had at stage 0, where the fit's scale is centred.

    The median of what a later stage has left would lie on an edge of the hole that the stage before has cut
    there, and take from that side alone. This one stays, and what is taken grows to both sides of it; where
    the model gains, it comes to lie higher among the NLLs.
    """

    needs = ()
    needs_reference = True

    def score(self, items: Candidates, select: SelectConfig) -> NDArray[np.float64]:
        """-|log NLL - log median|: 0 at the median, -inf where the NLL is 0.

        The papers cut as many ranks above the median as below it. An item does not know its rank; where NLLs
        are log-normal, equal distances of their logarithms hold as many items on both sides.
        """
        with np.errstate(divide="ignore"):
            return -np.abs(np.log(items.nll()) - np.log(items.median_nll))
