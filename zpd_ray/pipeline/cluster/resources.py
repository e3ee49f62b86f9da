"""What a run asks of a cluster, and whether the cluster has it: told before anything waits."""

from __future__ import annotations

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from zpd_ray.config import ClusterConfig, Config
from zpd_ray.engines.model_files import stored_dtype
from zpd_ray.engines.weights import weight_bytes
from zpd_ray.errors import ZpdError

# One logical CPU for the tasks that read, bin and filter parts while actors or train workers hold theirs.
TASK_CPUS = 1.0
GIB = 2**30
HALVES = ("bfloat16", "float16")
PLACE_SECONDS = 5.0  # in which a free place is found


def check_resources(config: Config) -> None:
    """Refuse at once what the cluster can never give.

    Raises ZpdError with what was asked and what the cluster has, where Ray would wait without a word. Not
    where an autoscaler may add what is missing.
    """
    if config.cluster.autoscaling:
        return
    have = ray.cluster_resources()
    cluster, workers = config.cluster, _train_workers(config)
    gpus = (cluster.actors * cluster.gpus_per_actor, workers * cluster.gpus_per_train_worker)
    _compare("CPUs", needed_cpus(config), have.get("CPU", 0.0))
    _compare("GPUs", _together(cluster, *gpus), have.get("GPU", 0.0))
    _compare("GiB of memory for model weights", needed_memory(config) / GIB, have.get("memory", 0.0) / GIB)
    each = cluster.cpus_per_actor, cluster.gpus_per_actor
    _check_room("scoring actors", cluster.actors, *each, score_nodes(cluster))
    each = cluster.cpus_per_train_worker, cluster.gpus_per_train_worker
    _check_room("train workers", workers, *each, train_nodes(cluster))


def score_nodes(cluster: ClusterConfig) -> dict[str, str]:
    """Labels of the nodes that score; empty: any node."""
    return cluster.score_nodes if cluster.placement == "split" else {}


def train_nodes(cluster: ClusterConfig) -> dict[str, str]:
    """Labels of the nodes that train; empty: any node."""
    return cluster.train_nodes if cluster.placement == "split" else {}


def _check_room(what: str, count: int, cpus: float, gpus: float, labels: dict[str, str]) -> None:
    """An actor takes its whole share on one node: the sum over nodes may be enough and yet no node is."""
    each = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    alive = [node for node in ray.nodes() if node["Alive"]]
    nodes = [node["Resources"] for node in alive if labels.items() <= node.get("Labels", {}).items()]
    room = sum(min(int(node.get(k, 0.0) / amount + 1e-9) for k, amount in each.items()) for node in nodes)
    if room < count:
        where = f" with the labels {labels} ({len(nodes)} of {len(alive)} nodes)" if labels else ""
        raise ZpdError(
            f"no room for the {what}: the run asks for {count} with {cpus:g} CPUs and {gpus:g} GPUs each, on "
            f"one node, the cluster's nodes{where} have room for {room}; ask for fewer or for less each, or "
            "join a cluster with larger nodes with cluster.address"
            + ("; nodes get labels by `ray start --labels`" if labels else "")
        )


def needed_memory(config: Config) -> float:
    """Bytes of main memory that the copies of a local model take at least, in the hungriest step."""
    return max(_weight_bytes(config))


def _weight_bytes(config: Config) -> tuple[float, float]:
    """For scoring and for training.

    A scoring actor and a LoRA worker hold the weights once, full fine-tuning four times (gradients and two
    moments); workers that share a model out hold that together, beside the weights that worker 0 loads.
    On CPUs training holds float32, whatever the files have. Nothing is counted for what is on GPUs.
    """
    weights = weight_bytes(config.model.path)
    whole = weights * (2 if weights and stored_dtype(config.model.path) in HALVES else 1)
    cluster, train = config.cluster, config.train
    copies = {"lora": 1, "full": 4, "none": 0}[train.method]
    each = whole if config.model.dtype == "float32" else weights
    scoring = 0 if cluster.gpus_per_actor else cluster.actors * each
    held = whole * (copies + 1) if train.sharding == "fsdp" else train.workers * whole * copies
    training = 0 if cluster.gpus_per_train_worker else held
    return float(scoring), float(training)


def _compare(what: str, asked: float, have: float) -> None:
    if asked > have + 1e-9:
        raise ZpdError(
            f"not enough {what}: the run asks for {asked:.4g} (scoring actors or train workers at a time, "
            f"and one CPU for tasks), the cluster has {have:.4g}; lower cluster.actors, train.workers or "
            "what each takes, or join a larger cluster with cluster.address (with cluster.autoscaling = true "
            "the run waits for nodes that an autoscaler adds)"
        )


def needed_cpus(config: Config) -> float:
    """Logical CPUs of the hungriest step, plus one task."""
    return TASK_CPUS + _together(config.cluster, scoring_cpus(config), training_cpus(config))


def scoring_cpus(config: Config) -> float:
    """Logical CPUs of all scoring actors."""
    return config.cluster.actors * config.cluster.cpus_per_actor


def training_cpus(config: Config) -> float:
    """Logical CPUs of all train workers; Ray Train's own controller asks for none."""
    return _train_workers(config) * config.cluster.cpus_per_train_worker


def _train_workers(config: Config) -> int:
    return 0 if config.train.method == "none" else config.train.workers


def _together(cluster: ClusterConfig, scoring: float, training: float) -> float:
    """Split over nodes of their own both are there at a time; else they can take turns."""
    return scoring + training if cluster.placement == "split" else max(scoring, training)


def room_for_both(config: Config, scoring: bool) -> bool:
    """Whether train workers and a task find a place beside the scoring actors, right now.

    scoring: the actors have their place already. Asked of Ray itself: sums over nodes hide that no node has
    a whole GPU left, or that others hold it.
    """
    cluster = config.cluster
    if cluster.placement == "split":
        return True
    if sum(_weight_bytes(config)) > ray.cluster_resources().get("memory", 0.0):
        return False
    actor = {"CPU": cluster.cpus_per_actor, "GPU": cluster.gpus_per_actor}
    worker = {"CPU": cluster.cpus_per_train_worker, "GPU": cluster.gpus_per_train_worker}
    asked = [actor] * (0 if scoring else cluster.actors) + [worker] * config.train.workers
    bundles = [{name: amount for name, amount in each.items() if amount} for each in asked]
    group = placement_group([*bundles, {"CPU": TASK_CPUS}])
    try:
        return bool(group.wait(timeout_seconds=PLACE_SECONDS))
    finally:
        remove_placement_group(group)
