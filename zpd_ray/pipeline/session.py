"""Starting or joining Ray, and checking what is asked against what the cluster has before anything waits."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from zpd_ray.config import ClusterConfig, Config
from zpd_ray.errors import ZpdError

# One logical CPU for the tasks that read, bin and filter parts while actors or train workers hold theirs.
TASK_CPUS = 1.0
GIB = 2**30
PLACE_SECONDS = 5.0  # in which a free place is found


@contextmanager
def ray_session(config: Config) -> Iterator[None]:
    """Ray for the length of a command; a cluster that was running before is left running."""
    already = ray.is_initialized()
    if not already:
        start(config.cluster, TASK_CPUS + _scoring_cpus(config) + _training_cpus(config))
    quiet()
    check_resources(config)
    try:
        yield
    finally:
        while _at_end:
            _at_end.pop()()
        if not already:
            ray.shutdown()


def needed_cpus(config: Config) -> float:
    """Logical CPUs of the hungriest step: scoring actors or train workers, plus one task."""
    return TASK_CPUS + max(_scoring_cpus(config), _training_cpus(config))


def _scoring_cpus(config: Config) -> float:
    return config.cluster.actors * config.cluster.cpus_per_actor


def _training_cpus(config: Config) -> float:
    # Ray Train's own controller asks for no CPU; its worker group does.
    trains = config.train.method != "none"
    return config.train.workers * config.cluster.cpus_per_train_worker if trains else 0.0


def room_to_train(config: Config) -> bool:
    """Whether train workers and a task find a place beside the scoring actors, right now.

    Asked of Ray itself: sums over nodes hide that no node has a whole GPU left, or that others hold it.
    """
    if sum(_weight_bytes(config)) > ray.cluster_resources().get("memory", 0.0):
        return False
    cluster = config.cluster
    worker = {"CPU": cluster.cpus_per_train_worker, "GPU": cluster.gpus_per_train_worker}
    bundles = [{name: amount for name, amount in worker.items() if amount}] * config.train.workers
    group = placement_group([*bundles, {"CPU": TASK_CPUS}])
    try:
        return bool(group.wait(timeout_seconds=PLACE_SECONDS))
    finally:
        remove_placement_group(group)


def at_end(close: Callable[[], None]) -> None:
    """Call ``close`` when the session ends."""
    _at_end.append(close)


_at_end: list[Callable[[], None]] = []


def start(cluster: ClusterConfig, cpus: float) -> None:
    """Start a Ray on this machine with at least ``cpus`` logical CPUs, or join the one at the address."""
    # Ray switches its usage reports on by default; a user who did not ask sends nothing.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray Data and Ray Train print their own progress; ours is the one on the screen.
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    if cluster.address != "local":
        _check_reachable(cluster.address)
        ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
        return
    # On a machine of our own more logical CPUs than cores may be declared: actors and tasks take turns.
    ray.init(
        address="local",
        num_cpus=max(os.cpu_count() or 1, math.ceil(cpus)),
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )


def quiet() -> None:
    """Our own progress is the one on the screen; errors of tasks come as they were raised."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A ZpdError of a task must reach the user as it is; its traceback is in Ray's own logs.
    context.raise_original_map_exception = True
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def lasting_actor(cls: type) -> Any:
    """The session's one actor of a class, started on first use: a process costs seconds to start.

    It takes no CPU, is restarted when it dies (then empty), and ends with the session.
    """
    return _actor_of(ray.get_runtime_context().get_job_id(), cls)


@cache  # holds the handle: Ray ends an actor that nobody refers to
def _actor_of(job: str, cls: type) -> Any:
    return ray.remote(cls).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()


def _check_reachable(address: str) -> None:
    """Ray itself waits for minutes for a cluster that is not there."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():
        return  # "auto": Ray finds the cluster of this machine, or says at once that there is none
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as problem:
        raise ZpdError(
            f"no Ray cluster answers at cluster.address = {address!r} ({problem}); expected the address "
            "of a running head node (port 6379 by default), or 'local' to start a Ray of its own"
        ) from None


def check_resources(config: Config) -> None:
    """Refuse at once what the cluster can never give.

    Raises ZpdError with what was asked and what the cluster has, where Ray would wait without a word.
    """
    have = ray.cluster_resources()
    cluster, train = config.cluster, config.train
    trains = train.method != "none"
    gpus = max(
        cluster.actors * cluster.gpus_per_actor, trains * train.workers * cluster.gpus_per_train_worker
    )
    _compare("CPUs", needed_cpus(config), have.get("CPU", 0.0))
    _compare("GPUs", gpus, have.get("GPU", 0.0))
    _compare("GiB of memory for model weights", needed_memory(config) / GIB, have.get("memory", 0.0) / GIB)
    _check_room("scoring actors", cluster.actors, cluster.cpus_per_actor, cluster.gpus_per_actor)
    if trains:
        each = cluster.cpus_per_train_worker, cluster.gpus_per_train_worker
        _check_room("train workers", train.workers, *each)


def _check_room(what: str, count: int, cpus: float, gpus: float) -> None:
    """An actor takes its whole share on one node: the sum over nodes may be enough and yet no node is."""
    each = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(min(int(node.get(k, 0.0) / amount + 1e-9) for k, amount in each.items()) for node in nodes)
    if room < count:
        raise ZpdError(
            f"no room for the {what}: the run asks for {count} with {cpus:g} CPUs and {gpus:g} GPUs each, on "
            f"one node, the cluster's nodes have room for {room}; ask for fewer or for less each, or join a "
            "cluster with larger nodes with cluster.address"
        )


def needed_memory(config: Config) -> float:
    """Bytes of main memory that the copies of a local model take at least, in the hungriest step."""
    return max(_weight_bytes(config))


def _weight_bytes(config: Config) -> tuple[float, float]:
    """For scoring and for training.

    A scoring actor and a LoRA worker hold the weights once, full fine-tuning four times (gradients and two
    moments). Nothing is counted for actors and workers on GPUs.
    """
    weights = sum(file.stat().st_size for file in Path(config.model.path).glob("*.safetensors"))
    cluster, train = config.cluster, config.train
    copies = {"lora": 1, "full": 4, "none": 0}[train.method]
    scoring = 0 if cluster.gpus_per_actor else cluster.actors * weights
    training = 0 if cluster.gpus_per_train_worker else train.workers * weights * copies
    return float(scoring), float(training)


def _compare(what: str, asked: float, have: float) -> None:
    if asked > have + 1e-9:
        raise ZpdError(
            f"not enough {what}: the run asks for {asked:.4g} (scoring actors or train workers at a time, "
            f"and one CPU for tasks), the cluster has {have:.4g}; lower cluster.actors, train.workers or "
            "what each takes, or join a larger cluster with cluster.address"
        )
