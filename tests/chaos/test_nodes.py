"""Nodes that are there, that come and that go: the same selection."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import simulated_values
from tests.pipeline.processes import call
from zpd_ray.pipeline.store import Store

pytestmark = pytest.mark.slow

CODE = """
import json, sys, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from zpd_ray.config_file import validate
from zpd_ray.pipeline.commands import perform

values, nodes, change = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
others = [cluster.add_node(num_cpus=2) for _ in range(nodes - 1)]
cluster.wait_for_nodes()
values["cluster"] |= {"address": cluster.address}

def come_or_go():
    if change == "come":
        time.sleep(5)
        cluster.add_node(num_cpus=2)
    if change == "go":
        while not list(Path(values["output"]).glob("stages/00/measurements/*")):
            time.sleep(0.02)
        cluster.remove_node(others[0], allow_graceful=False)

thread = threading.Thread(target=come_or_go)
thread.start()
perform("run", validate(values))
thread.join()
ray.shutdown()
cluster.shutdown()
"""

Selections = dict[str, bytes]
Run = Callable[..., tuple[Store, Selections]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(name: str, nodes: int, change: str = "", **cluster: Any) -> tuple[Store, Selections]:
        values = simulated_values(tmp_path, n=4000, cluster=cluster) | {"output": str(tmp_path / name)}
        done = call([sys.executable, "-c", CODE, json.dumps(values), str(nodes), change])
        assert done.returncode == 0, done.stderr
        store = Store(str(tmp_path / name))
        files = [
            f"stages/{t:02d}/selected/{file}"
            for t in (0, 1)
            for file in store.names(f"stages/{t:02d}/selected")
        ]
        return store, {file: store.read_bytes(file) for file in files}

    return run


def test_one_two_and_four_nodes_give_the_same_selection(run: Run) -> None:
    _, one = run("one", 1)
    assert one
    assert run("two", 2)[1] == one
    assert run("four", 4, actors=3)[1] == one


def test_a_node_that_goes_is_survived_and_one_that_comes_is_used(run: Run) -> None:
    _, undisturbed = run("undisturbed", 2)
    assert run("gone", 3, "go", actors=2)[1] == undisturbed
    # Three actors of a CPU each, and room for two: the third one starts on the node that comes.
    store, selections = run("come", 1, "come", actors=3, autoscaling=True)
    assert selections == undisturbed
    at_work = {len(event["scorers"]) for event in store.events() if event["step"] == "scored"}
    assert max(at_work) == 3
