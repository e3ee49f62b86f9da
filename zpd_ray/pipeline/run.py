"""The stage loop. Every step is skipped when its closing file is there, so that running again resumes.

measure -> fit -> select -> train -> evaluate, for each stage; in split placement the next stage is measured
while this one trains.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from zpd_ray.config import Config
from zpd_ray.engines import ModelRef
from zpd_ray.pipeline.cluster.resources import room_for_both
from zpd_ray.pipeline.fit.ability import fit_ability, load_fit
from zpd_ray.pipeline.ingest.ingest import ingest
from zpd_ray.pipeline.measure.evaluate import evaluate
from zpd_ray.pipeline.measure.measure import measure
from zpd_ray.pipeline.measure.scorers import close_scorers, has_scorers
from zpd_ray.pipeline.select.select import select
from zpd_ray.pipeline.train.controller import StageTask
from zpd_ray.rundir.begin import record
from zpd_ray.rundir.store import Store
from zpd_ray.selection.budget import check_anchors_left, resolve_budget
from zpd_ray.terminal import say


def run(config: Config, store: Store) -> None:
    """All stages of a run, from where an earlier attempt stopped."""
    ingest_step(config, store)
    evaluate_base_step(config, store)
    if overlaps(config):
        _run_overlapped(config, store)
        return
    for stage in range(config.stages):
        choose_steps(config, store, stage)
        train_steps(config, store, stage)
        evaluate_step(config, store, stage)


def choose_steps(config: Config, store: Store, stage: int) -> None:
    """From the model of the stage to the items that it trains on."""
    measure_step(config, store, stage)
    fit_step(config, store, stage)
    select_step(config, store, stage)


def _run_overlapped(config: Config, store: Store) -> None:
    """Nodes that score and nodes that train are busy at the same time, with one stage between them."""
    trainer = ThreadPoolExecutor(1)
    try:
        training: Future[None] | None = None
        for stage in range(config.stages):
            choose_steps(config, store, stage)
            work = prepare_step(config, store, stage)
            if training is not None:
                training.result()
            training = trainer.submit(train_step, config, store, stage, work)
            if stage:
                evaluate_step(config, store, stage - 1)
        if training is not None:
            training.result()
        evaluate_step(config, store, config.stages - 1)
    finally:
        trainer.shutdown(wait=False)  # the end of the session ends what is under way


def ingest_step(config: Config, store: Store) -> None:
    """Pool, evaluation set and quarantine."""
    if not store.exists("config.toml"):
        # What a refused or killed attempt has read may come from another config: it is read again.
        with timed(store, "ingest"):
            ingest(config, store)
    pool = store.read_json("pool.json")
    # A budget that the pool cannot pay is refused before anything is measured.
    amount = resolve_budget(config.select.budget, pool["items"], pool["response_tokens"])
    check_anchors_left(amount, config.stages, pool["items"], pool["response_tokens"])
    record(config, store)


def evaluate_base_step(config: Config, store: Store) -> None:
    """Evaluation of the base model."""
    if not store.exists("base/metrics.json"):
        with timed(store, "evaluate"):
            evaluate(config, store, model_of(config, store, 0), "base")


def measure_step(config: Config, store: Store, stage: int) -> None:
    """Measure the pool with the model of the stage."""
    name = stage_directory(stage)
    if not store.exists(f"{name}/measured.json"):
        with timed(store, "measure", stage) as event:
            model = model_of(config, store, stage - staleness(config, stage))
            totals = measure(config, store, model, "pool", f"{name}/measurements")
            store.write_json(f"{name}/measured.json", totals)
            event |= totals


def fit_step(config: Config, store: Store, stage: int) -> None:
    """Calibrate difficulties and estimate ability."""
    if not store.exists(f"{stage_directory(stage)}/fit.json"):
        with timed(store, "fit", stage) as event:
            fit = fit_ability(config, store, stage, staleness(config, stage))
            event |= {"theta": fit.theta, "theta_se": fit.theta_se}
            flags = f" ({', '.join(fit.flags)})" if fit.flags else ""
            say(f"stage {stage}: theta = {fit.theta:.3f} +- {fit.theta_se:.3f} logits{flags}")


def select_step(config: Config, store: Store, stage: int) -> None:
    """Choose what the stage trains on."""
    if not store.exists(f"{stage_directory(stage)}/selection.json"):
        with timed(store, "select", stage) as event:
            chosen = select(config, store, load_fit(store, stage))
            event |= {"selected": chosen["selected"], "tokens": chosen["tokens"]}
            say(
                f"stage {stage}: selected {chosen['zone']} items of the zone (mean b {chosen['mean_b']:.2f}, "
                f"mean p {chosen['mean_p']:.2f}) and {chosen['replay']} to replay; {chosen['tokens']} tokens"
            )
            for warning in chosen["warnings"]:
                say(f"  note: {warning}")


def train_steps(config: Config, store: Store, stage: int) -> None:
    """Train the model of the stage on the selection."""
    train_step(config, store, stage, prepare_step(config, store, stage))


def prepare_step(config: Config, store: Store, stage: int) -> StageTask | None:
    """Workers, and the selection in the order in which they take it; None where there is nothing to train."""
    name = stage_directory(stage)
    if config.train.method == "none" or store.exists(f"{name}/train.json"):
        return None
    # torch: not for runs that do not train
    from zpd_ray.pipeline.train.job import has_train_job
    from zpd_ray.pipeline.train.train import prepare

    if not has_train_job() and not room_for_both(config, has_scorers()):
        close_scorers()
    return prepare(config, store, model_of(config, store, stage), name)


def train_step(config: Config, store: Store, stage: int, work: StageTask | None) -> None:
    """Train on what was prepared."""
    if work is None:
        return
    from zpd_ray.pipeline.train.job import close_train_job
    from zpd_ray.pipeline.train.train import train

    with timed(store, "train", stage) as event:
        event |= train(config, store, work)
    if not (has_scorers() or overlaps(config)):  # there was no room for both: they take turns
        close_train_job()


def evaluate_step(config: Config, store: Store, stage: int) -> None:
    """Evaluate the model that the stage leaves; its metrics.json closes the stage."""
    if not store.exists(f"{stage_directory(stage)}/metrics.json"):
        with timed(store, "evaluate", stage):
            evaluate(config, store, model_of(config, store, stage + 1), stage_directory(stage))


def overlaps(config: Config) -> bool:
    """Whether a stage is measured while the one before trains."""
    return config.cluster.placement == "split" and config.train.method != "none"


def staleness(config: Config, stage: int) -> int:
    """How many stages of training the measured model of ``stage`` is behind the one that trains."""
    return int(overlaps(config) and stage > 0)


def stage_directory(stage: int) -> str:
    """Of the files of a stage, in the run directory."""
    return f"stages/{stage:02d}"


def first_open_stage(config: Config, store: Store) -> int:
    """The stage that the next step belongs to; the last one when all are finished."""
    stages = range(config.stages)
    return next(
        (t for t in stages if not store.exists(f"{stage_directory(t)}/metrics.json")), config.stages - 1
    )


def model_of(config: Config, store: Store, stage: int) -> ModelRef:
    """The model that ``stage`` begins with: the base model, or what the stage before has trained."""
    method = config.train.method
    if stage == 0 or method == "none":
        return ModelRef(config.model.path, None, stage)
    before = stage_directory(stage - 1)
    trained = f"{store.root}/{before}/{config.train.result}"
    canary = None if config.train.function else f"{before}/canary.parquet"
    if method == "lora":
        return ModelRef(config.model.path, trained, stage, canary)
    return ModelRef(trained, None, stage, canary)


@contextmanager
def timed(store: Store, step: str, stage: int | None = None) -> Iterator[dict[str, Any]]:
    """An event for a step that ends well, with its seconds; the caller adds what it did."""
    started = time.perf_counter()
    event: dict[str, Any] = {"step": step, "stage": stage}
    yield event
    store.append_event({"at": time.time(), **event, "seconds": round(time.perf_counter() - started, 3)})
