"""What a selection method is, and what it may look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    from zpd_ray.config import SelectConfig

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """Some items of the pool. Arrays of shape (n,), tables of n rows in the same order.

    theta: ability of the model, logits; with ``ability.groups`` that on the item's group, (n,). item_hash:
    uint64, seeded, another one for each run seed and stage. b, b_sd: mean and sd of the difficulty given the
    item's responses, logits. p: probability of a right answer. guess: the part of it that guessing gives.
    zpd: ZPDScore by ``select.criterion`` and ``select.target_p``, expected over what is known of the
    difficulty. measured: by name of the measure, its columns (as ``Method.needs`` asked for them); rows
    without an NLL hold nulls in ``answers``, and are never selected. median_nll: of the pool at stage 0, nats
    per token, as the fit's scale has it (in bins of 1.6 %). For a method that ``compares``, from stage 1 on:
    nll_before, the NLL under the model of an earlier stage, NaN where that could not measure the item; and
    where ``select.delta_by`` asks for it fall_of_group, by which the NLL has fallen in the item's group, the
    mean over items that were never trained on.
    """

    theta: float | Floats
    item_hash: NDArray[np.uint64]
    b: Floats
    b_sd: Floats
    p: Floats
    guess: Floats
    zpd: Floats
    measured: Mapping[str, pa.Table]
    median_nll: float = math.nan
    nll_before: Floats | None = None
    fall_of_group: Floats | None = None

    def nll(self, measure: str = "answers", column: str = "nll") -> Floats:
        """A column of NLLs, float64 (n,); NaN where the row could not be measured."""
        values: Floats = self.measured[measure][column].to_numpy().astype(np.float64)
        return values


class Method(Protocol):
    """A score per item, the larger the sooner selected.

    One with an attribute ``static`` that is true is shown, at every stage, what stage 0 measured and fitted;
    one with ``zone`` that is true looks for the zone: what it takes from outside is the nearest there was;
    one with ``compares`` that is true is shown the NLLs of an earlier stage, too (``select.delta_since``);
    one with ``blind`` that is true looks at nothing, so that what was measured is no cost of it;
    one with ``needs_reference`` that is true goes by the NLL of a reference, and is refused with
    ``pool.reference = "prompt"``, where NLLs are those of prompts (methods whose measures need one are, too).
    """

    @property
    def needs(self) -> tuple[str, ...]:
        """Names (or import paths) of measures beside ``answers``, which is always measured."""

    def score(self, items: Candidates, select: SelectConfig) -> Floats:
        """float64 (n,), any range; NaN: the item may not be selected.

        An item's score must not depend on the other items: parts of the pool are scored one by one.
        """


Score = Callable[[Candidates, "SelectConfig"], Floats]


class FunctionMethod:
    """A user's ``score(items, select)`` as a method; the function may have ``needs`` and ``static``."""

    def __init__(self, function: Score) -> None:
        self.needs: tuple[str, ...] = tuple(getattr(function, "needs", ()))
        self.static = bool(getattr(function, "static", False))
        self.score = function
