"""What is placed where, and whether it fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from zpd_ray.config import ClusterConfig, Config
from zpd_ray.plan.rates import Memory


@dataclass(frozen=True)
class Node:
    """A machine: CPUs, GPUs, main memory (GiB; of a cluster what its Ray counts) and labels."""

    name: str
    cpus: float
    gpus: float
    memory: float
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Placed:
    """What a node would hold. needed: GiB of main memory at the peak."""

    node: Node
    actors: int
    workers: int
    needed: float


@dataclass(frozen=True)
class Room:
    """Where everything goes. beside: actors and train workers are there together, not in turns.

    problems: sentences; none where all fits.
    """

    nodes: list[Placed]
    beside: bool
    problems: list[str]

    @property
    def fits(self) -> bool:
        """Whether nothing is too large."""
        return not self.problems


def room(config: Config, nodes: list[Node], beside: bool, actor: Memory, worker: Memory) -> Room:
    """Actors spread over the nodes, train workers packed, as Ray is asked to place them."""
    cluster, workers = config.cluster, 0 if config.train.method == "none" else config.train.workers
    split = cluster.placement == "split"
    free = [[node.cpus, node.gpus] for node in nodes]
    score = cluster.score_nodes if split else {}
    each = (cluster.cpus_per_actor, cluster.gpus_per_actor)
    actors = _place(nodes, free, cluster.actors, each, score, spread=True)
    if not beside:
        free = [[node.cpus, node.gpus] for node in nodes]
    each = (cluster.cpus_per_train_worker, cluster.gpus_per_train_worker)
    trainers = _place(nodes, free, workers, each, cluster.train_nodes if split else {}, spread=False)
    placed = [
        Placed(node, a, w, _needed(a * actor.main, w * worker.main, beside))
        for node, a, w in zip(nodes, actors, trainers, strict=True)
    ]
    found = [*_too_few(cluster, sum(actors), sum(trainers), workers), *_too_large(placed)]
    whole = "" if config.train.sharding == "fsdp" else "; train.sharding = 'fsdp' shares it among several"
    problems = [*found, *_gpu("scoring actor", actor), *_gpu("train worker", worker, whole)]
    return Room(placed, beside, problems)


def _place(
    nodes: list[Node],
    free: list[list[float]],
    count: int,
    each: tuple[float, float],
    labels: dict[str, str],
    spread: bool,
) -> list[int]:
    """How many of ``count`` go to each node; takes what they need from ``free`` (CPUs, GPUs by node)."""
    placed = [0] * len(nodes)
    for _ in range(count):
        fit = [
            i
            for i, node in enumerate(nodes)
            if labels.items() <= node.labels.items()
            and all(have + 1e-9 >= need for have, need in zip(free[i], each, strict=True))
        ]
        if not fit:
            break
        at = min(fit, key=lambda i: (placed[i], i)) if spread else fit[0]
        placed[at] += 1
        free[at] = [have - need for have, need in zip(free[at], each, strict=True)]
    return placed


def _needed(scoring: float, training: float, beside: bool) -> float:
    return scoring + training if beside else max(scoring, training)


def _too_few(cluster: ClusterConfig, actors: int, trainers: int, workers: int) -> Iterator[str]:
    for what, placed, asked in (
        ("scoring actors", actors, cluster.actors),
        ("train workers", trainers, workers),
    ):
        if placed < asked:
            yield f"{placed} of {asked} {what} find a place; ask for fewer or for less each"


def _too_large(placed: list[Placed]) -> Iterator[str]:
    for each in placed:
        if each.needed > each.node.memory:
            yield (
                f"{each.node.name} would need {each.needed:.2g} GiB of main memory and has "
                f"{each.node.memory:.2g}; lower cluster.actors or train.workers"
            )


def _gpu(what: str, memory: Memory, hint: str = "") -> Iterator[str]:
    if memory.gpu_has and memory.gpu > memory.gpu_has:
        yield f"a {what} would need {memory.gpu:.2g} GiB of a GPU that has {memory.gpu_has:.2g}{hint}"
