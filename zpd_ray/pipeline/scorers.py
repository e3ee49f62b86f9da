"""The scoring actors: each holds an engine, from stage to stage, as long as the cluster has room for it.

Ray Data's own actor pool ends with its dataset, and an engine takes up to minutes to start. So the engines
live in actors of their own, and what Ray Data runs are light tasks, one per part, that hand their part to the
least busy scorer and wait. A scorer has two parts in hand: one is computed, the next is turned into ids.
"""

from __future__ import annotations

import tempfile
import time
from threading import Lock
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.metrics import Counter

from zpd_ray import engines, graders
from zpd_ray.config import Config, MeasureConfig
from zpd_ray.engines import Engine, EngineError, ModelRef
from zpd_ray.engines.canary import check_canary, tolerance
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.part_measurement import count, measure_items
from zpd_ray.pipeline.session import at_end, lasting_actor
from zpd_ray.pipeline.store import Store

IN_HAND = 2  # parts that a scorer has at a time
ATTEMPTS = 4  # at a part, by scorers that die or whose engine fails


class Scorer:
    """The actor. Every call names its model, so that a restarted scorer knows what to load."""

    def __init__(self, config: Config, store: Store) -> None:
        """Nothing is loaded before the first part."""
        self._config, self._store = config, store
        self._engine: Engine | None = None
        self._model: ModelRef | None = None
        self._copy: Any = None  # the directory that holds the model, where the run directory is remote
        self._loading, self._start_seconds = Lock(), 0.0
        self._tokens = Counter("zpd_ray_scored_tokens", "response tokens scored")
        self._seconds = Counter("zpd_ray_scoring_seconds", "seconds spent on parts")

    def measure(
        self, measure: MeasureConfig, model: ModelRef, items: str, into: str, name: str
    ) -> dict[str, Any]:
        """Measure one part with ``model`` and write its file; what was counted."""
        started = time.perf_counter()
        engine, grader = self._engine_of(model), graders.load(measure.grader)
        table = measure_items(engine, grader, self._store.read_table(f"{items}/{name}"), measure, model.stage)
        if self._model != model:
            raise EngineError("the scorer was given another model while it measured a part")
        self._store.write_table(f"{into}/{name}", table)
        counts = count(table)
        self._tokens.inc(counts["tokens"])
        self._seconds.inc(time.perf_counter() - started)
        return counts

    def usage(self) -> dict[str, float]:
        """What the engine did since the last call, and how long it took to start if it did."""
        if self._engine is None:
            return {}
        start, self._start_seconds = self._start_seconds, 0.0
        return self._engine.usage() | {"start_seconds": start}

    def settings(self) -> dict[str, Any]:
        """Those of the engine; empty when none was needed."""
        return {} if self._engine is None else self._engine.settings()

    def _engine_of(self, model: ModelRef) -> Engine:
        with self._loading:
            if self._engine is None or self._model != model:
                self._engine = self._load(model)
                self._model = model
            return self._engine

    def _load(self, model: ModelRef) -> Engine:
        """The engine with other weights in it, checked against what their trainer expects."""
        self._model = None  # until the canary lives
        directory = tempfile.TemporaryDirectory(prefix="zpd-ray-")
        local = self._store.fetched(model, directory.name)
        if self._engine is None:
            started = time.perf_counter()
            engine = engines.load(self._config, local)
            self._start_seconds = time.perf_counter() - started
        else:
            engine = self._engine
            engine.follow(local)
        self._copy = directory  # and the copy of the model before is deleted
        if model.canary is not None:
            canary = self._store.read_table(model.canary)
            check_canary(engine, canary, tolerance(self._config), model)
        return engine


class Desk:
    """Tells a task which scorer is the least busy."""

    def __init__(self) -> None:
        """No scorers yet."""
        self._busy: list[int] = []

    def open(self, scorers: int) -> None:
        """So many scorers, all idle."""
        self._busy = [0] * scorers

    def take(self) -> int:
        """The index of a scorer, which counts as busier from here on."""
        index = self._busy.index(min(self._busy))
        self._busy[index] += 1
        return index

    def give_back(self, index: int) -> None:
        """The scorer has done its part."""
        self._busy[index] -= 1


class Scorers:
    """Handles of the scoring actors and of their desk; sent to tasks."""

    def __init__(self, config: Config, store: Store) -> None:
        """The actors are asked for; Ray starts them."""
        cluster = config.cluster
        actor = ray.remote(Scorer).options(
            num_cpus=cluster.cpus_per_actor,
            num_gpus=cluster.gpus_per_actor,
            max_concurrency=IN_HAND,
            max_restarts=-1,
            max_task_retries=ATTEMPTS - 1,
            scheduling_strategy="SPREAD",
        )
        self.actors: list[Any] = [actor.remote(config, store) for _ in range(cluster.actors)]
        self.desk = lasting_actor(Desk)
        ray.get(self.desk.open.remote(len(self.actors)))

    def measure(self, name: str, *arguments: Any) -> dict[str, Any]:
        """``Scorer.measure`` of part ``name`` by the least busy scorer; called in a task.

        An engine that fails is restarted with its process and the part is done again, a few times. Raises
        ZpdError when that did not help, or when the scorer did.
        """
        reason = ""
        for _ in range(ATTEMPTS):
            index = ray.get(self.desk.take.remote())
            scorer = self.actors[index]
            try:
                counts: dict[str, Any] = ray.get(scorer.measure.remote(*arguments, name))
                return counts | {"scorer": index}
            except RayActorError as death:
                reason = str(death).partition("\n")[0]
                break  # Ray has tried as often already
            except RayTaskError as error:
                if not isinstance(error.cause, EngineError):
                    raise
                reason = str(error.cause)
                ray.kill(scorer, no_restart=False)
            finally:
                self.desk.give_back.remote(index)
        raise ZpdError(
            f"part {name} could not be measured in {ATTEMPTS} attempts: {reason}; parts that are done are "
            "kept: see the Ray logs of the scoring actors, mend the cause (often memory) and run again"
        )

    def close(self) -> None:
        """End the actors: their memory and their place in the cluster are free for others."""
        for actor in self.actors:
            ray.kill(actor)


_open: list[Scorers] = []  # of this session: one pool at most


def scorers(config: Config, store: Store) -> Scorers:
    """The scorers of this session, started when there are none; they end with it."""
    if not _open:
        _open.append(Scorers(config, store))
        at_end(close_scorers)
    return _open[0]


def close_scorers() -> None:
    """End the scorers of this session, if there are any."""
    while _open:
        _open.pop().close()
