"""What a finished run has come to: right or wrong and NLL of every item of the evaluation set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zpd_ray.errors import ZpdError
from zpd_ray.hashing import item_keys, streams, uniforms
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import BASE, StageFiles

Floats = NDArray[np.float64]
TUNED = 104  # the stream of random numbers that sets items apart for tuning


@dataclass(frozen=True)
class Outcome:
    """Of one model, arrays (n,) over the items of the evaluation set in the order of its parts.

    credit: share right, 0 to 1; nll: nats per token; both NaN where the item could not be measured.
    for_tuning: whether the item belongs to the part that trials are judged by.
    """

    credit: Floats
    nll: Floats
    for_tuning: NDArray[np.bool_]


def outcome(run: Run, tuned: float, stage: int | None) -> Outcome:
    """Of the model that ``stage`` has left, None: of the base model.

    tuned: share of the items that are set apart for tuning, by a hash of their ids: the same in every run.
    Raises ZpdError where that leaves no item for it, or none for the table.
    """
    directory = f"{BASE}/evaluation" if stage is None else StageFiles(stage).evaluation
    columns = ["item_id", "credit", "rollouts", "nll", "error"]
    rows = pa.concat_tables(
        [run.store.read_table(f"{directory}/{name}", columns) for name in run.store.names(directory)]
    )
    failed = rows["error"].is_valid().to_numpy()
    asked = np.maximum(rows["rollouts"].to_numpy(), 1)
    credit = np.where(failed, np.nan, rows["credit"].to_numpy().astype(np.float64) / asked)
    nll = np.where(failed, np.nan, rows["nll"].to_numpy().astype(np.float64))
    for_tuning = uniforms(streams(item_keys(rows["item_id"]), TUNED)) < tuned
    if for_tuning.all() or (tuned and not for_tuning.any()):
        raise ZpdError(
            f"{for_tuning.sum()} of {len(for_tuning)} evaluation items are drawn for tuning, which "
            "leaves none for the table or for trials; give a larger evaluation set, or another tune_share"
        )
    return Outcome(credit, nll, for_tuning)


def last_outcome(run: Run, tuned: float) -> Outcome:
    """Of the model that the run ends with."""
    return outcome(run, tuned, run.config.stages - 1)


def worth(trial: Outcome) -> tuple[float, float]:
    """What a trial is judged by, the larger the better: accuracy, then less NLL, of the part for tuning."""
    part = trial.for_tuning
    return float(np.nanmean(trial.credit[part])), -float(np.nanmean(trial.nll[part]))
