"""Probes: items that are held out of training and asked again at each stage, by which ability is followed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zpd_ray.config import MeasureConfig
from zpd_ray.errors import ZpdError

Floats = NDArray[np.float64]

SHARE = 0.04  # of the pool, at most: they are lost for training
MOST_MEASURED = 0.05  # of the pool, in scope probe: probes, and what is measured again of drifted parts
FEWEST = 10
FIRST_PROBES = 128  # of the first round; each further one doubles those asked so far
BANDS = 5  # of difficulty, with equal numbers of items


def most_probes(how: MeasureConfig, pool_items: int) -> int:
    """How many probes a pool may have. Raises ZpdError where they are too few to follow ability by."""
    most = min(how.probes, int(SHARE * pool_items))
    if how.scope != "pool" and most < FEWEST:
        raise ZpdError(
            f"measure.scope = {how.scope!r} follows ability by items that are never trained on, and got "
            f"{most} of them: measure.probes = {how.probes}, and at most {SHARE:.0%} of {pool_items} items; "
            f"expected {FEWEST} or more: take measure.scope = 'pool', or more of either"
        )
    return most


def probe_order(b: Floats, information: Floats, group: NDArray[np.str_], draw: Floats) -> NDArray[np.int64]:
    """All items in the order in which they are to be asked: indices (n,).

    b: difficulty, logits; information: at the ability of now; draw: uniform in (0, 1); all of shape (n,).
    Every start of the order holds bands of difficulty and groups in proportion. Within a band of a group
    items come by weighted sampling without replacement, the weight being their information: keys are
    exponential with it as rate (Efraimidis & Spirakis 2006, Information Processing Letters 97(5)). By
    information alone probes would lie around one theta, and the model moves on.
    """
    band = np.searchsorted(np.quantile(b, np.arange(1, BANDS) / BANDS), b, side="right")
    names, of_group = np.unique(group, return_inverse=True)
    cell = band * len(names) + of_group
    key = -np.log(draw) / np.maximum(information, 1e-12)
    order = np.lexsort((key, cell))
    sizes = np.bincount(cell)
    rank = np.arange(len(b)) - (np.cumsum(sizes) - sizes)[cell[order]]
    share = (rank + 0.5) / sizes[cell[order]]
    return np.asarray(order[np.lexsort((key[order], share))])
