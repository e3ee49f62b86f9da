"""An engine whose responses hold no answer, as with too few new tokens."""

from __future__ import annotations

import pyarrow as pa

from zpd_ray.engines import Completions
from zpd_ray.engines.simulated import SimulatedEngine


class Silent(SimulatedEngine):
    """Begins every response and ends none."""

    def generate(self, items: pa.Table, rollouts: int, stage: int) -> Completions:
        """So many times the same words."""
        return Completions(
            [["Let us think"] * rollouts for _ in range(items.num_rows)], [None] * items.num_rows
        )
