"""The training job at its end."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import pytest
import ray

from tests.pipeline.conftest import simulated_values
from zpd_ray.config_file import validate
from zpd_ray.pipeline.train.job import TrainJob
from zpd_ray.rundir import Run, Store


@pytest.mark.nightly  # test_controller.py: one that was restarted asks, and learns from the worker
def test_workers_that_ask_a_controller_that_was_restarted_leave_too(local_ray: None, tmp_path: Path) -> None:
    values = simulated_values(tmp_path, n=1, engine={"name": "transformers"}, train={"method": "lora"})
    config = validate(values)
    job = TrainJob(Run(config, Store(config.output)))
    closing = Thread(target=job.close)
    closing.start()
    ray.get(job._controller.status.remote(0))  # it has been told by now, and its workers are still starting
    ray.kill(job._controller, no_restart=False)
    closing.join()
    assert not job._thread.is_alive()
