"""Train on a stage's selection with Ray Train, batches streamed from Ray Data."""

from __future__ import annotations

import math
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.train
from ray.train import CheckpointConfig, DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from zpd_ray.config import Config
from zpd_ray.engines import ModelRef
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline import parts
from zpd_ray.pipeline.board import board
from zpd_ray.pipeline.failures import user_error
from zpd_ray.pipeline.progress import say
from zpd_ray.pipeline.store import Store
from zpd_ray.pipeline.train_loop import TrainJob, train_loop
from zpd_ray.selection.keys import item_hash

# A worker that dies (preempted, out of memory) is replaced and goes on from the last checkpoint.
WORKER_FAILURES = 3
SNAPSHOT = "checkpoint_manager_snapshot.json"  # Ray Train's, in its directory


def train(config: Config, store: Store, model: ModelRef, directory: str) -> None:
    """Train ``model`` on ``directory``/selected; an interrupted stage goes on from its last checkpoint.

    Leaves the adapter (or model), the trainer state and train.json in ``directory``, a stage's own.
    """
    selected = store.read_json(f"{directory}/selection.json")["selected"]
    workers, epochs = config.train.workers, config.train.epochs
    rows = [epochs * share_of(selected, worker, workers) for worker in range(workers)]
    steps = math.ceil(max(rows) / (config.train.batch_size // workers))
    say(f"training {directory}: {selected} items, {epochs} epochs, {steps} steps, {workers} workers")
    _drop_torn_snapshot(store, f"{directory}/ray_train")
    shards = ordered_shards(store, f"{directory}/selected", config.seed, model.stage, epochs, rows)
    with board(f"training {directory}", steps) as actor:
        job = TrainJob(config, store, model, directory, _previous_state(store, model.stage), steps, actor)
        _fit(job, shards)
    store.remove(f"{directory}/ray_train")  # checkpoints inside the stage have served


def _drop_torn_snapshot(store: Store, directory: str) -> None:
    """Ray Train writes its list of checkpoints in place: a kill in between would refuse every resumption."""
    name = f"{directory}/{SNAPSHOT}"
    try:
        if store.exists(name):
            store.read_json(name)
    except ValueError:
        store.remove(directory)


def _fit(job: TrainJob, shards: list[ray.data.Dataset]) -> None:
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={"job": job},
        datasets={f"worker-{i}": shard for i, shard in enumerate(shards)},
        dataset_config=DataConfig(datasets_to_split=[]),  # each worker has a deterministic shard of its own
        scaling_config=_scaling(job.config),
        run_config=_run_config(job.store, job.directory),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise ZpdError(
            f"training of {job.directory} failed: {user_error(error) or error}; what was measured and "
            "selected is kept: mend the cause and run again"
        ) from error


def share_of(rows: int, worker: int, workers: int) -> int:
    """How many of ``rows`` have rank modulo ``workers`` equal to ``worker``."""
    return rows // workers + (worker < rows % workers)


def ordered_shards(
    store: Store, selected: str, seed: int, stage: int, epochs: int, rows: list[int]
) -> list[ray.data.Dataset]:
    """One materialised dataset per worker, of ``rows[worker]`` rows, in training order.

    Worker = rank modulo workers, so that every worker sees the whole range of scores; within a worker, epoch
    after epoch, each in the order of a seeded hash of the item id. Nothing depends on blocks or on timing.
    """
    deal = partial(_deal, store, selected, seed, stage, epochs, len(rows))
    ordered = parts.tables(store.names(selected), deal).sort(["worker", "epoch", "order", "rank"])
    if len(rows) == 1:
        return [ordered.materialize()]
    ends = [sum(rows[: i + 1]) for i in range(len(rows) - 1)]
    return list(ordered.split_at_indices(ends))


def _deal(
    store: Store, selected: str, seed: int, stage: int, epochs: int, workers: int, name: str
) -> pa.Table:
    """Rows of one selected part, once per epoch, with the columns they are sorted by."""
    columns = ["item_id", "messages", "response", "rank"]
    items = store.read_table(f"{selected}/{name}", columns)
    rank = items["rank"].to_numpy()
    tables = []
    for epoch in range(epochs):
        order = item_hash(items["item_id"], seed, stage, f"train epoch {epoch}")
        dealt = items.append_column("worker", pa.array(rank % workers))
        dealt = dealt.append_column("epoch", pa.array([epoch] * len(rank), pa.int64()))
        # Ray sorts int64; dropping the lowest bit keeps the order.
        tables.append(dealt.append_column("order", pc.cast(pa.array(order >> 1), pa.int64())))
    return pa.concat_tables(tables)


def _previous_state(store: Store, stage: int) -> str | None:
    directory = f"stages/{stage - 1:02d}/trainer"
    return directory if stage and store.exists(directory) else None


def _scaling(config: Config) -> ScalingConfig:
    cluster = config.cluster
    resources: dict[str, float] = {"CPU": cluster.cpus_per_train_worker}
    if cluster.gpus_per_train_worker:
        resources["GPU"] = cluster.gpus_per_train_worker
    return ScalingConfig(
        num_workers=config.train.workers,
        use_gpu=cluster.gpus_per_train_worker > 0,
        resources_per_worker=resources,
    )


def _run_config(store: Store, directory: str) -> RunConfig:
    return RunConfig(
        name="ray_train",  # the same name and place: Ray Train finds its last checkpoint again
        storage_path=store.path(directory),
        storage_filesystem=store.fs,
        checkpoint_config=CheckpointConfig(num_to_keep=1),
        failure_config=FailureConfig(max_failures=WORKER_FAILURES),
    )
