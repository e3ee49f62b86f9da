"""Does an engine serve the weights that were trained? Fixed items, whose NLLs the trainer has recorded.

An engine that keeps an old adapter, or loads half of one, raises nothing and answers: every measurement after
it would be wrong. So the trainer measures a few items before and after its stage, and an engine that loads
the result has to agree with the second before it measures anything.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from zpd_ray.config import Config
from zpd_ray.engines.base import Engine, ModelRef
from zpd_ray.errors import ZpdError

ITEMS = 32
# Trainer and engine compute the same mean NLL (nats per token) in other orders of summation, and on a GPU in
# other kernels and types: how far apart they may be, and the move below which nothing can be told. In float32
# that holds for each item. In bfloat16 an item of two tokens was off by 0.06 with nothing wrong, so there it
# holds for the mean over the items, where rounding cancels.
FLOAT32, HALF = 1e-3, 1e-1
NOISE = {FLOAT32: 1e-4, HALF: 3e-2}


def tolerance(config: Config) -> float:
    """Nats per token: that of float32 where trainer and engine both compute in it."""
    cluster = config.cluster
    on_cpu = cluster.gpus_per_actor == 0 and cluster.gpus_per_train_worker == 0
    return FLOAT32 if on_cpu and config.model.dtype in ("auto", "float32") else HALF


def check_canary(engine: Engine, canary: pa.Table, most: float, model: ModelRef) -> None:
    """Measure the canary items with the engine; ZpdError when it does not serve the trained weights.

    canary: columns item_id, messages, response, nll_before and nll_after (mean NLL under the weights that the
    stage began and ended with); most: FLOAT32 or HALF. The engine may be off by ``most``, and by no more than
    half of what training moved: the old weights would be off by all of it.
    """
    scores = engine.score(canary)
    before, after = canary["nll_before"].to_numpy(), canary["nll_after"].to_numpy()
    allowed = np.clip(_gap(after, before, most) / 2, NOISE[most], most)
    if _gap(scores.nll, after, most) <= allowed:  # not for a NaN
        return
    worst = int(np.argmax(np.nan_to_num(np.abs(scores.nll - after), nan=np.inf)))
    stale = _gap(scores.nll, before, most) <= allowed
    raise ZpdError(
        f"the engine does not serve what was trained ({model.adapter or model.base}): the NLL of item "
        f"{canary['item_id'][worst]} is {scores.error[worst] or f'{scores.nll[worst]:.4f}'}, the trainer had "
        f"{before[worst]:.4f} before and {after[worst]:.4f} after its stage, and {allowed:.1g} is allowed; "
        + ("it still serves the weights of the stage before" if stale else "the files may be damaged")
        + ": nothing was measured with it; remove the stage's train.json and its adapter to train it again"
    )


def _gap(one: np.ndarray, other: np.ndarray, most: float) -> float:
    """Nats per token: the largest over the items, or in half precision that of their means."""
    return float(np.abs(one - other).max() if most == FLOAT32 else abs((one - other).mean()))
