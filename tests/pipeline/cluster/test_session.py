"""Starting and joining Ray: refused at once what the cluster cannot give; left running where it was."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.pipeline.conftest import simulated_values
from tests.pipeline.processes import call
from zpd_ray.config import Config
from zpd_ray.config_file import validate
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.rundir import Run, Store


def session_of(config: Config) -> Session:
    return Session(Run(config, Store(config.output)))


AT_ONCE = 10.0  # seconds, on a machine that stalls; where Ray waits, it waits for ever


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"cluster": {"actors": 400}}, "not enough CPUs: the run asks for 401"),
        ({"cluster": {"cpus_per_actor": 64.5}}, "not enough CPUs: the run asks for 65.5"),
        ({"cluster": {"gpus_per_actor": 40}}, "not enough GPUs: the run asks for 40"),
        (
            {
                "engine": {"name": "transformers"},
                "train": {"method": "lora", "workers": 96, "batch_size": 96},
            },
            "not enough CPUs: the run asks for 97",
        ),
        (
            {
                "engine": {"name": "transformers"},
                "train": {"method": "full"},
                "cluster": {"gpus_per_train_worker": 40},
            },
            "not enough GPUs: the run asks for 40",
        ),
    ],
)
def test_more_than_the_cluster_has_is_refused_at_once(
    local_ray: None, tmp_path: Path, sections: dict[str, Any], told: str
) -> None:
    config = validate(simulated_values(tmp_path, n=1, **sections))
    started = time.monotonic()
    with pytest.raises(ZpdError, match=rf"^{told}.*the cluster has .*lower cluster.actors"):
        session_of(config).__enter__()
    assert time.monotonic() - started < AT_ONCE
    assert ray.is_initialized()  # it was there before


def test_an_autoscaler_may_add_what_is_missing(local_ray: None, tmp_path: Path) -> None:
    asked = {"actors": 400, "autoscaling": True}
    with session_of(validate(simulated_values(tmp_path, n=1, cluster=asked))):
        assert ray.is_initialized()


def test_a_ray_that_was_there_is_joined_and_left_running(address: str, tmp_path: Path) -> None:
    """The tests' own, which belongs to another process than the run."""
    values = simulated_values(tmp_path, n=300, stages=1, cluster={"address": address, "actors": 2})
    code = f"""
import json
from zpd_ray.config_file import validate
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.commands import perform
perform("run", validate({values!r}))
more = {values | {"output": str(tmp_path / "more"), "cluster": {"address": address, "actors": 4}}!r}
try:
    perform("run", validate(more))
except ZpdError as error:
    print(json.dumps(str(error)))
"""
    done = call([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/stages/00/metrics.json").exists()
    refused = json.loads(done.stdout.splitlines()[-1])
    assert "asks for 5" in refused  # a cluster of others is not told to have more CPUs than it has
    assert "the cluster has 4" in refused
    assert ray.get(ray.remote(lambda: len(ray.nodes())).remote()) == 1  # still there
