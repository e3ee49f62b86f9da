"""A node that is taken away after notice, as spot machines are: a checkpoint comes before it goes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from tests.pipeline.processes import RUN_SECONDS
from tests.pipeline.train.hard_conditions import STEPS_TAKEN
from tests.pipeline.train.test_train import (  # noqa: F401
    CODE,
    CONDITIONS,
    STAGE,
    Make,
    checkpoints_in,
    fit,
    make,
    model_dir,
)
from zpd_ray.config import Config
from zpd_ray.rundir import Store

pytestmark = [pytest.mark.nightly, pytest.mark.usefixtures("local_ray")]

NOTICE_SECONDS = 20
SCORE, TRAIN = {"zpd-ray": "score"}, {"zpd-ray": "train"}  # labels of nodes


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + RUN_SECONDS
    while not happened():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def give_notice(cluster: Cluster, node: str) -> None:
    """As an autoscaler does that the cloud has told; and as ``ray drain-node``."""
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    gone = int((time.time() + NOTICE_SECONDS) * 1000)
    accepted, why_not = GcsClient(address=cluster.address).drain_node(node, reason, "spot", gone)
    assert accepted, why_not


def steps_taken(store: Store) -> list[tuple[str, int]]:
    """Node of worker 0, and number, of each step in turn."""
    file = Path(store.path(STEPS_TAKEN))
    lines = file.read_text().splitlines() if file.exists() else []
    return [(line.split()[0], int(line.split()[1])) for line in lines]


def on_cluster(config: Config, cluster: Cluster, log: Path) -> subprocess.Popen[bytes]:
    there = config.cluster.model_copy(update={"address": cluster.address, "placement": "split"})
    text = config.model_copy(update={"cluster": there}).model_dump_json()
    environment = os.environ | {"RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1"}
    with log.open("w") as said:
        return subprocess.Popen([sys.executable, "-c", CODE, text], stdout=said, stderr=said, env=environment)


def test_two_workers_of_which_one_loses_its_node_after_notice_lose_seconds(
    make: Make,  # noqa: F811
    tmp_path: Path,
) -> None:
    """No checkpoint is due in these 360 steps: the only ones are those that the notice has made."""
    section = {"workers": 2, "batch_size": 8, "epochs": 120, "checkpoint_steps": 100_000}
    undisturbed = fit(make(**section))
    config, store = make(function=f"{CONDITIONS}:long_steps", **section)
    log = tmp_path / "log"
    head = {"num_cpus": 2, "labels": SCORE}
    cluster, process = Cluster(initialize_head=True, head_node_args=head), None
    try:
        going, _ = (cluster.add_node(num_cpus=1, labels=TRAIN) for _ in range(2))
        cluster.wait_for_nodes()
        process = on_cluster(config, cluster, log)
        wait_until(lambda: len(steps_taken(store)) > 5, process, log)
        cluster.add_node(num_cpus=1, labels=TRAIN)
        give_notice(cluster, going.node_id)
        end, at_notice = time.monotonic() + NOTICE_SECONDS, len(steps_taken(store))
        assert not checkpoints_in(store)
        wait_until(lambda: bool(checkpoints_in(store)), process, log)
        assert time.monotonic() < end
        time.sleep(max(0.0, end - time.monotonic()))
        cluster.remove_node(going, allow_graceful=False)
        assert process.wait(RUN_SECONDS) == 0, log.read_text()
    finally:
        if process is not None:
            process.kill()
        cluster.shutdown()
    numbers = [number for _, number in steps_taken(store)]
    (again,) = [i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1] + 1]
    first, lost = numbers[again], numbers[again - 1] + 1 - numbers[again]
    print(
        f"notice after {at_notice} steps, {numbers[again - 1] + 1} taken, begun again at {first}, {lost} lost"
    )
    assert first > at_notice
    assert lost <= (numbers[again - 1] - at_notice) / 2  # of those that were taken after the notice
    for name in ("adapter/adapter_model.safetensors", "train.json", "steps.parquet", "canary.parquet"):
        assert store.read_bytes(f"{STAGE}/{name}") == undisturbed.read_bytes(f"{STAGE}/{name}"), name
