"""Measured stages through the product's own fits: theta, its gain, and what the anchors say of it.

    python benchmarks/replay_stages.py stages.parquet

The file holds a row per item: ``trained_at`` (stage that trained on it, -1 never; stage t is measured before
it trains), and by stage ``nll_0``, ``right_0``, ``nll_1``, ... (nats per token; 0 or 1, or right answers of
``rollouts_0``, ...). The output is JSON, a fit for each stage: theta and gain of that stage and of those
before on the fit's scale, with standard errors, and the share right of items never trained on beside what the
fit expects of it. A reader can check one by the other: theta must move as the share does.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zpd_ray.ability import count_history
from zpd_ray.calibration import Fit, Statistics, fit_stage
from zpd_ray.config import AbilityConfig
from zpd_ray.errors import ZpdError


def replay(table: pa.Table, config: AbilityConfig) -> list[Fit]:
    """The fits that a run would have made at each of the stages."""
    fits: list[Fit] = []
    for stage in range(sum(name.startswith("nll_") for name in table.column_names)):
        fits.append(fit_stage(statistics(table, stage), config, stage, fits[-1] if fits else None))
    return fits


def statistics(table: pa.Table, stage: int) -> Statistics:
    """What the fit of a stage sees."""
    trained_at = table["trained_at"].to_numpy()
    none = np.zeros(len(trained_at), np.int64)
    answers = {}
    for earlier in range(stage + 1):
        away = (trained_at >= 0) & (trained_at < earlier)
        s, k = responses(table, earlier)
        answers[earlier] = (np.where(away, 0, s), np.where(away, 0, k))
    trained = (trained_at >= 0) & (trained_at < stage)
    history = count_history(column(table, f"nll_{0}"), none, trained, answers)
    nll, (s, k) = column(table, f"nll_{stage}"), responses(table, stage)
    return Statistics.of(nll[~trained], none[~trained], s[~trained], k[~trained], history)


def responses(table: pa.Table, stage: int) -> tuple[Any, Any]:
    """Right answers and rollouts of a stage: int64, (n,) each."""
    right = column(table, f"right_{stage}").astype(np.int64)
    rollouts = f"rollouts_{stage}"
    return right, column(table, rollouts).astype(
        np.int64
    ) if rollouts in table.column_names else right * 0 + 1


def column(table: pa.Table, name: str) -> Any:
    """float64 (n,). Raises ZpdError when it is missing or has gaps."""
    if name not in table.column_names:
        raise ZpdError(f"the file has no column {name!r}; it has {table.column_names}")
    values = table[name].to_numpy().astype(np.float64)
    if not np.isfinite(values).all():
        raise ZpdError(f"{name}[{int(np.argmin(np.isfinite(values)))}] is not a number; leave such items out")
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path)
    parser.add_argument("--calibration", choices=["explanatory", "feedback"], default="explanatory")
    options = parser.parse_args()
    config = AbilityConfig(calibration=options.calibration)
    for fit in replay(pq.read_table(options.file), config):
        print(json.dumps({"stage": fit.stage} | asdict(fit.ability)))


if __name__ == "__main__":
    main()
