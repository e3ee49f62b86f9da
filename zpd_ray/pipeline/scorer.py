"""The scoring actor: an engine, and what it takes to measure a part with it."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from threading import Lock
from typing import Any

from ray.util.metrics import Counter

from zpd_ray import engines, graders
from zpd_ray.config import Config, MeasureConfig
from zpd_ray.engines import Engine, EngineError, ModelRef
from zpd_ray.engines.canary import check_canary, tolerance
from zpd_ray.pipeline.ingest import EVALUATION
from zpd_ray.pipeline.part_measurement import count, measure_items
from zpd_ray.pipeline.store import Store


class EngineFailureError(Exception):
    """An EngineError, with the life of the process that it has to end."""

    def __init__(self, reason: str, life: str) -> None:
        super().__init__(reason, life)
        self.life = life

    def __str__(self) -> str:
        return str(self.args[0])


class Scorer:
    """The actor. Every call names its model, so that a restarted scorer knows what to load."""

    def __init__(self, config: Config, store: Store) -> None:
        """Nothing is loaded before the first part."""
        self._config, self._store = config, store
        self._engine: Engine | None = None
        self._model: ModelRef | None = None
        self._copy: Any = None  # the directory that holds the model, where the run directory is remote
        self._loading, self._start_seconds = Lock(), 0.0
        self._life = uuid.uuid4().hex
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

    def end(self, life: str) -> None:
        """End this process, unless it is another one than the caller has met: it was restarted already."""
        if life == self._life:
            os._exit(1)

    def _engine_of(self, model: ModelRef) -> Engine:
        with self._loading:
            if self._engine is None or self._model != model:
                self._load(model)
            assert self._engine is not None
            return self._engine

    def _load(self, model: ModelRef) -> None:
        """Weights into the engine, checked against what their trainer expects."""
        self._model = None  # until the canary lives
        directory = tempfile.TemporaryDirectory(prefix="zpd-ray-")
        local = self._store.fetched(model, directory.name)
        if self._engine is None:
            started = time.perf_counter()
            self._engine = engines.load(self._config, local, self._longest())
            self._start_seconds = time.perf_counter() - started
        else:
            self._engine.follow(local)
        self._copy = directory  # and the copy of the model before is deleted
        if model.canary is not None:
            canary = self._store.read_table(model.canary)
            check_canary(self._engine, canary, tolerance(self._config), model)
        self._model = model

    def _longest(self) -> int | None:
        """Tokens of the longest row or prompt with completion, of pool and evaluation set."""
        names = [f"{items}.json" for items in ("pool", EVALUATION)]
        pools = [self._store.read_json(name) for name in names if self._store.exists(name)]
        new = self._config.measure.max_new_tokens
        longest = [max(pool["longest"], pool["longest_prompt"] + new) for pool in pools if "longest" in pool]
        return max(longest, default=None)
