"""Starting or joining Ray for the length of a command, and what lives as long as that."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import ray
from ray.data.context import ShuffleStrategy

from zpd_ray.config import ClusterConfig, Config
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster.resources import check_resources, scoring_cpus, training_cpus

IDLE_WORKER_MS = 60_000


@contextmanager
def ray_session(config: Config) -> Iterator[None]:
    """Ray for the length of a command; a cluster that was running before is left running."""
    already = ray.is_initialized()
    if not already:
        start(config.cluster, scoring_cpus(config) + training_cpus(config))
    set_up_data()
    try:
        check_resources(config)
        yield
    finally:
        while _at_end:
            _at_end.pop()()
        if not already:
            ray.shutdown()


def at_end(close: Callable[[], None]) -> None:
    """Call ``close`` when the session ends."""
    _at_end.append(close)


_at_end: list[Callable[[], None]] = []


def start(cluster: ClusterConfig, cpus: float) -> None:
    """Join the Ray at the address, or start one here with ``cpus`` for actors beside this machine's cores."""
    # Ray switches its usage reports on by default; a user who did not ask sends nothing.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray Data and Ray Train print their own progress; ours is the one on the screen.
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    if cluster.address != "local":
        _check_reachable(cluster.address)
        ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    else:
        _start_here(cpus)


def _start_here(cpus: float) -> None:
    # Ray ends workers that idle for a second: on a small machine every step would start its processes anew,
    # at seconds of a core each (24 starts against 14 in a run of two stages).
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", str(IDLE_WORKER_MS))
    # Actors that wait and tasks that compute take turns, so all cores are for tasks, too, and no more.
    cores = os.cpu_count() or 1
    ray.init(
        address="local",
        num_cpus=cores + math.ceil(cpus),
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    options = ray.data.DataContext.get_current().execution_options
    at_end(partial(setattr, options, "resource_limits", options.resource_limits))
    options.resource_limits = ray.data.ExecutionResources.for_limits(cpu=cores)


def set_up_data() -> None:
    """Our own progress on the screen, errors of tasks as they were raised, shuffles by tasks."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # The default shuffles through actors that are started anew each time, at seconds of a core each.
    context.shuffle_strategy = ShuffleStrategy.SORT_SHUFFLE_PULL_BASED
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
