"""What is done for a command before Ray is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from tests.pipeline.conftest import simulated_values
from tests.test_machine import with_machine
from zpd_ray import opening
from zpd_ray.config_file import validate
from zpd_ray.opening import check, open_run
from zpd_ray.rundir.begin import record


def test_a_run_that_took_what_the_machine_has_can_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_machine(monkeypatch, 3)
    monkeypatch.setattr(opening, "_joins_a_ray", lambda: False)  # as in a process of its own
    model = tiny.build_model(tmp_path, texts=["question 1"], layers=1)
    sections = {"model": {"path": str(model)}, "engine": {"name": "transformers"}}
    config = validate(simulated_values(tmp_path, n=20, train={"method": "lora"}, **sections))
    run, _ = open_run(config)
    assert run.config.cluster.cpus_per_train_worker == 3
    record(run)
    assert check(config)[0].config == run.config
