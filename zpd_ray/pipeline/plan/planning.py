"""``zpd-ray plan``: read or estimate the pool, time a run in small, say what the whole run will take.

Nothing is written into the run directory, so that the config may still change; with ``ingest_first`` the pool
is, which a run then need not read again. The run in small is made beside it, where all nodes of a cluster
see it, and is removed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import ray
from ray.exceptions import RayError

from zpd_ray import ray_folder
from zpd_ray.config import Config
from zpd_ray.errors import ZpdError
from zpd_ray.machine import this_machine
from zpd_ray.pipeline.cluster.failures import user_error
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.pipeline.plan.pool import Read, ingest_now, near, read_pool
from zpd_ray.pipeline.plan.trial import Trial, judging, training_line, worker_memory
from zpd_ray.pipeline.train.rehearsal import GIB, is_due
from zpd_ray.plan.estimate import Plan, plan
from zpd_ray.plan.rates import Phases, Rates
from zpd_ray.plan.room import Node, Room, room
from zpd_ray.rundir import Run
from zpd_ray.rundir.begin import check_ours
from zpd_ray.rundir.layout import LOCK
from zpd_ray.rundir.lock import locked
from zpd_ray.selection.budget import check_anchors_left, resolve_budget
from zpd_ray.selection.probes import most_probes
from zpd_ray.terminal import doing, say

SECONDS = 5.0  # of a timed batch
SUFFIX = ".plan"  # of the directory of the run in small


def make_plan(
    opened: Run, told: list[str], since: float, seconds: float = SECONDS, ingest_first: bool = False
) -> Plan:
    """What the run of a config (``opening.open_run``) will take.

    told: what is to be said of it. since: when the command began, by ``time.monotonic``. Raises ZpdError for
    whatever would end the run in its first steps.
    """
    for line in told:
        say(line)
    try:
        with _beside(opened) as small:
            with Session(small) as session:
                start = time.monotonic() - since
                if ingest_first:
                    with locked(opened.store):
                        ingest_now(opened)
                doing("reading the pool")
                read = read_pool(session, opened)
                _check_budget(opened, read)
                rates, placed, trial = _timed(session, opened, read, start, seconds)
                ending = time.monotonic()
            rates = replace(rates, end=time.monotonic() - ending)
    except (RayError, ZpdError) as error:
        raise user_error(error) or error from None
    sources, timed = (read.pool, read.evaluation), (trial.sample_told(), trial.warnings())
    return plan(opened.config, *sources, rates, placed, *timed)


@contextmanager
def _beside(real: Run) -> Iterator[Run]:
    """A run of the same config next to the real one, which is removed at the end, also by a signal.

    A plan that was killed otherwise leaves it to the next one. Raises ZpdError when another process is
    planning the same run, or the directory holds something else.
    """
    store = near(real.store, SUFFIX)
    check_ours(store)
    with locked(store):
        ray_folder.take_along(Path(store.path()) if store.is_local else None)
        try:
            for name in store.entries(""):
                if name != LOCK:
                    store.remove(name)
            own = near(store, f"/{uuid4().hex}")
            yield Run(_lenient(real.config).model_copy(update={"output": own.uri}), own)
        finally:
            store.remove("")
            ray_folder.take_along(None)


def _lenient(config: Config) -> Config:
    """Without the limits that a run has, which a handful of items exceeds by chance, and without probes."""
    limits = {"max_failed_share": 1.0, "max_unparsed_share": 1.0, "scope": "pool"}
    return config.model_copy(update={"measure": config.measure.model_copy(update=limits)})


def _check_budget(real: Run, read: Read) -> None:
    """As a run is refused for it, before anything is measured."""
    have, stages = (read.pool.items, read.pool.response_tokens), real.config.stages
    check_anchors_left(resolve_budget(real.config.select.budget, *have), stages, *have)
    most_probes(real.config.measure, have[0])


def _timed(
    session: Session, real: Run, read: Read, start: float, seconds: float
) -> tuple[Rates, Room, Trial]:
    trial, cluster = Trial(session, real, read, seconds), real.config.cluster
    doing("trying one training step")
    step = trial.step() if real.trains and not real.config.train.function else None
    doing("timing the engine")
    base = trial.engine(session.run.model(0), trial.begin)
    reads, generates = trial.work()
    actor = trial.actor_memory()
    trial.shrink(step)
    doing("timing a run in small")
    course = trial.course(base)
    fit, select = judging(course.first, course.later, trial.item_seconds())
    train_start, training = training_line(course.trained, step, real.config.train.workers)
    worker = worker_memory(step, cluster.gpus_per_train_worker > 0, actor.gpu_has)
    rates = Rates(
        start=start,
        ingest=read.ingest,
        rehearse=step.whole if step is not None and is_due(real) else 0.0,
        engine_start=base.loading,
        engine_again=course.tuned.loading,
        measuring=Phases(base.pool, course.tuned.pool),
        evaluating=Phases(base.once, course.tuned.once),
        fit=fit,
        select=select,
        train_start=train_start,
        training=training,
        read=reads,
        generated=generates,
        actor=actor,
        worker=worker,
        end=0.0,  # it has not ended yet
    )
    return rates, room(real.config, _nodes(real), course.beside, actor, worker), trial


def _nodes(real: Run) -> list[Node]:
    """Those of the cluster; of a Ray of our own this machine, with the CPUs that its Ray counts."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    own = real.config.cluster.address == "local"
    return [
        Node(
            "this machine" if own else node["NodeManagerAddress"],
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
            (this_machine().memory if own else node["Resources"].get("memory", 0.0)) / GIB,
            node.get("Labels", {}),
        )
        for node in alive
    ]
