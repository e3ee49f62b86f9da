"""A function in as many processes as there are train workers, which find one another and work together."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util import get_node_ip_address
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from zpd_ray.config import Config
from zpd_ray.pipeline.cluster.resources import train_nodes

LAST_WORDS = 5.0  # seconds in which others tell what they died of, after the first has


def together(
    config: Config,
    work: Callable[..., Any],
    *args: Any,
    variables: dict[str, str],
    failed: Callable[[Any], bool],
) -> list[Any]:
    """What ``work(*args, worker, meeting)`` returns in each of ``train.workers`` processes, in no order.

    meeting: for ``torch.distributed.init_process_group``. variables: of their environment. Each has what a
    train worker has; all start at the same time. In place of a result there may be the RayError of a process
    that died. Of one that has died, or whose result is ``failed``, others die or wait in vain: those that say
    nothing soon after are ended, and have no place in the list.
    """
    cluster, workers = config.cluster, config.train.workers
    each = {"CPU": cluster.cpus_per_train_worker}
    if cluster.gpus_per_train_worker:
        each["GPU"] = cluster.gpus_per_train_worker
    nodes = train_nodes(cluster)
    where: dict[str, Any] = {"bundle_label_selector": [nodes] * workers} if nodes else {}
    group = placement_group([each] * workers, **where)
    try:
        ray.get(group.ready())
        meeting = ray.get(ray.remote(_meeting).options(**_in(group, 0), num_cpus=0).remote())
        tasks = [
            ray.remote(max_calls=1, max_retries=0)(work)
            .options(
                **_in(group, worker),
                num_cpus=each["CPU"],
                num_gpus=each.get("GPU", 0),
                runtime_env={"env_vars": variables},
            )
            .remote(*args, worker, meeting)
            for worker in range(workers)
        ]
        return _outcomes(tasks, failed)
    finally:
        remove_placement_group(group)  # and with it those that still wait for one that has died


def _in(group: Any, bundle: int) -> dict[str, Any]:
    place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
    return {"scheduling_strategy": place}


def _meeting() -> str:
    """A port that is free on this node, as Ray Train finds one for its workers."""
    address = get_node_ip_address()
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"


def _outcomes(tasks: list[Any], failed: Callable[[Any], bool]) -> list[Any]:
    waiting, told, over = list(tasks), list[Any](), False
    while waiting:
        done, waiting = ray.wait(waiting, timeout=LAST_WORDS if over else None)
        if not done:
            break
        try:
            told += ray.get(done)
        except RayError as error:
            told.append(error)
        over = over or isinstance(told[-1], RayError) or failed(told[-1])
    return told
