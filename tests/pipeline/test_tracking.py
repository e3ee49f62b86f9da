"""What the trainer keeps of its steps, and trackers are told of it, in a run of a real model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.processes import Quickstart, run_here
from tests.tracking.test_tensorboard import directory_of, scalars
from zpd_ray.rundir.begin import recorded_run
from zpd_ray.rundir.layout import TRAIN
from zpd_ray.rundir.records import load_closing, load_metrics
from zpd_ray.schema import STEP
from zpd_ray.training.schedule import learning_rate


def test_a_finished_run_tells_its_steps_to_a_tracker_that_comes_later(
    quickstart: Quickstart, tmp_path: Path
) -> None:
    run = recorded_run(str(quickstart.output))
    overrides = (*quickstart.overrides, f"output={quickstart.output}", f"track.tensorboard={tmp_path}")
    run_here("run", quickstart.config, *overrides)
    told = dict(scalars(directory_of(tmp_path)))
    first = tokens = 0
    for stage in range(run.config.stages):
        steps = run.store.read_table(f"stages/{stage:02d}/steps.parquet")
        trained = load_closing(run.store, stage, TRAIN)
        assert steps.schema == STEP
        assert steps.num_rows == trained["steps"]
        losses, weights = steps["loss"].to_numpy(), steps["tokens"].to_numpy()
        assert (losses * weights).sum() / trained["tokens"] == pytest.approx(trained["train_nll"])
        for step, loss in enumerate(losses):
            rate = learning_rate(run.config.train, stage, run.config.stages, step, steps.num_rows)
            assert told["train/loss", first + step] == pytest.approx(loss, rel=1e-6)
            assert told["train/learning_rate", first + step] == pytest.approx(rate, rel=1e-6)
        first, tokens = first + steps.num_rows, tokens + trained["tokens"]
        assert told["train/tokens", first - 1] == tokens
        assert told["evaluation/accuracy", stage + 1] == pytest.approx(
            load_metrics(run.store, stage).accuracy, rel=1e-6
        )
    assert ("train/loss", first) not in told
