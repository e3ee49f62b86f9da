"""What is true of the items of the simulated engine."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from zpd_ray.engines.simulated import DIFFICULTY, normals
from zpd_ray.hashing import item_keys


def true_difficulty(item_ids: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """float64 (n,): b_i ~ N(0, 1), logits, a function of the item's id alone."""
    return normals(item_keys(item_ids), DIFFICULTY)
