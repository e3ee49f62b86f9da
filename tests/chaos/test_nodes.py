"""Nodes that are there, that come and that go: the same selection."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from tests.pipeline.conftest import simulated_values
from tests.pipeline.processes import RUN_SECONDS
from zpd_ray.rundir.records import load_events
from zpd_ray.rundir.store import Store

pytestmark = pytest.mark.slow

CODE = """
import json, sys
from zpd_ray.config_file import validate
from zpd_ray.pipeline.commands import perform
perform("run", validate(json.loads(sys.argv[1])))
"""

Selections = dict[str, bytes]
Simulate = Callable[..., tuple[Store, Selections]]


def come(nodes: Cluster) -> None:
    """A node joins."""
    nodes.add_node(num_cpus=2)


def go(nodes: Cluster) -> None:
    """One is killed, with all that is on it."""
    nodes.remove_node(max(nodes.worker_nodes, key=lambda node: node.unique_id), allow_graceful=False)


@pytest.fixture
def run(tmp_path: Path) -> Simulate:
    def run(
        name: str, nodes: int, change: Callable[[Cluster], None] | None = None, **options: Any
    ) -> tuple[Store, Selections]:
        """``change`` happens as soon as the first part of the first stage is measured."""
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        process, output = None, tmp_path / name
        try:
            for _ in range(nodes - 1):
                cluster.add_node(num_cpus=2)
            cluster.wait_for_nodes()
            place = options | {"address": cluster.address}
            values = simulated_values(tmp_path, n=4000, cluster=place) | {"output": str(output)}
            with (tmp_path / f"{name}.log").open("w+") as log:
                command = [sys.executable, "-c", CODE, json.dumps(values)]
                process = subprocess.Popen(command, stdout=log, stderr=log)
                if change is not None:
                    wait_for(output / "stages/00/measurements/answers", process)
                    change(cluster)
                assert process.wait(RUN_SECONDS) == 0, (tmp_path / f"{name}.log").read_text()
        finally:
            if process is not None:
                process.kill()
            cluster.shutdown()
        files = sorted(output.glob("stages/*/selected/*"))
        return Store(str(output)), {str(f.relative_to(output)): f.read_bytes() for f in files}

    return run


def wait_for(directory: Path, process: subprocess.Popen[bytes]) -> None:
    """Until there is a file in it."""
    deadline = time.monotonic() + RUN_SECONDS
    while not any(directory.glob("*.parquet")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def at_work(store: Store) -> list[int]:
    """How many scorers took part in each measuring."""
    return [len(event.details["scorers"]) for event in load_events(store) if event.step == "scored"]


def test_one_two_and_four_nodes_give_the_same_selection(run: Simulate) -> None:
    _, one = run("one", 1)
    assert len(one) > 1
    assert run("two", 2)[1] == one
    assert run("four", 4, actors=3)[1] == one


def test_a_node_that_goes_is_survived(run: Simulate) -> None:
    _, undisturbed = run("undisturbed", 2)
    assert run("gone", 3, go, actors=2)[1] == undisturbed


def test_a_node_that_comes_is_used(run: Simulate) -> None:
    _, undisturbed = run("undisturbed", 2)
    # Two CPUs, and three actors of a CPU each: nobody waits for the third, which joins with the node.
    store, selections = run("come", 1, come, actors=3, autoscaling=True)
    assert selections == undisturbed
    assert max(at_work(store)) == 3
