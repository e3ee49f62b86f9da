"""Train on a stage's selection: batches streamed from Ray Data to the workers of a Ray Train job."""

from __future__ import annotations

from zpd_ray.config import Config
from zpd_ray.engines import ModelRef
from zpd_ray.pipeline.controller import Work
from zpd_ray.pipeline.progress import progress, say
from zpd_ray.pipeline.shards import ordered_shards, share_of
from zpd_ray.pipeline.store import Store
from zpd_ray.pipeline.train_job import train_job


def train(config: Config, store: Store, model: ModelRef, directory: str) -> dict[str, float]:
    """Train ``model`` on ``directory``/selected; an interrupted stage goes on from its last checkpoint.

    Leaves the adapter (or model), the trainer state and train.json in ``directory``, a stage's own. Returns
    waited: seconds in which the workers, up since the stage before, had nothing to train.
    """
    job = train_job(config, store)  # first: workers start while the selection is sorted
    work = _work(config, store, model, directory)
    epochs, workers = config.train.epochs, config.train.workers
    say(f"training {directory}: {work.items} items, {epochs} epochs, {workers} workers")
    with progress(f"training {directory}", work.rows[0]) as advance:
        heard = job.train(work, advance)
    return {} if heard.waited is None else {"waited": round(heard.waited, 3)}


def _work(config: Config, store: Store, model: ModelRef, directory: str) -> Work:
    items, epochs, workers = _dealt(config, store, directory), config.train.epochs, config.train.workers
    rows = [epochs * share_of(items, worker, workers) for worker in range(workers)]
    shards = ordered_shards(store, f"{directory}/selected", config.seed, model.stage, epochs, rows)
    state = f"stages/{model.stage - 1:02d}/trainer"
    previous = state if model.stage and store.exists(state) else None
    iterators = [shard.iterator() for shard in shards]
    return Work(config, store, model, directory, previous, items, rows, iterators)


def _dealt(config: Config, store: Store, directory: str) -> int:
    """Items that are trained on: all, and for a loop of the user's the same number for every worker."""
    selected = int(store.read_json(f"{directory}/selection.json")["selected"])
    return selected - (selected % config.train.workers if config.train.function else 0)
