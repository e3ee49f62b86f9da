"""What a fit may take: counted and not timed, so that it ends at the same place on every machine."""

from __future__ import annotations

import math
from dataclasses import dataclass

PATIENCE = 5.0  # seconds that a fit may take, by default, where there are no more than so many items:
ITEMS = 10_000
# Of that, in microseconds of counted work: the rest is for what is not counted, and for slower machines.
COUNTED = 0.7e6
RESPONDENTS = 300  # with so many or fewer


class TooMuchWorkError(ValueError):
    """A fit would take far longer than its size lets expect."""


@dataclass
class Work:
    """Counted in what it takes, about, in microseconds.

    spent: so far. due: what the posteriors of all items at the end will take, by the evaluation under way.
    """

    limit: float
    spent: float = 0.0
    due: float = 0.0

    @classmethod
    def for_items(cls, n_items: int, patience: float = PATIENCE) -> Work:
        """What so many items, or columns that stand for several, may take: in proportion beyond ITEMS."""
        if not patience > 0.0:
            raise ValueError(f"patience must be a number of seconds > 0, got {patience}.")
        return cls(COUNTED * patience * max(1.0, n_items / ITEMS))

    @classmethod
    def for_matrix(cls, n_respondents: int, n_items: int, patience: float) -> Work:
        """The same where there are parameters for each item, and respondents may be many."""
        return cls.for_items(max(n_items, n_items * n_respondents // RESPONDENTS), patience)

    @property
    def is_over(self) -> bool:
        """Whether it was too much: nothing more may be done."""
        return self.spent + self.due > self.limit

    def add(self, microseconds: float, due: float = 0.0) -> None:
        """Count some; raises TooMuchWorkError where it is too much, and from then on."""
        self.spent += microseconds
        self.due += due
        if self.is_over:
            self.spent = math.inf
            raise TooMuchWorkError(
                f"this fit would take longer than {self.limit / COUNTED:.3g} s: it has many parameters, and "
                "responses that nearly separate, or floors, or many rollouts; give patience=... more "
                "seconds, or fewer respondents, items or rollouts."
            )
