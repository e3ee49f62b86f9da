"""The scoring actor: an engine, and what it takes to measure a part with it."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from ray.util.metrics import Counter

from zpd_ray import engines, measures
from zpd_ray.config import MeasureConfig
from zpd_ray.engines.base import Engine, EngineError, ModelRef, Pulse
from zpd_ray.engines.canary import check_canary, tolerance
from zpd_ray.engines.usage import rates
from zpd_ray.measures import Measure
from zpd_ray.pipeline.cluster.memory import peak_here
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import EVALUATION, POOL


class EngineFailureError(Exception):
    """An EngineError, with the life of the process that it has to end."""

    def __init__(self, reason: str, life: str) -> None:
        super().__init__(reason, life)
        self.life = life

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Request:
    """What a scorer is asked for: a measure of each part in directory ``items``, into directory ``into``."""

    measure: str
    how: MeasureConfig
    model: ModelRef
    items: str
    into: str


class Scorer:
    """The actor. Every call names its model, so that a restarted scorer knows what to load."""

    def __init__(self, run: Run) -> None:
        """Nothing is loaded before the first part."""
        self._run = run
        self._engine: Engine | None = None
        self._model: ModelRef | None = None
        self._copy: Any = None  # the directory that holds the model, where the run directory is remote
        self._loading, self._counting = Lock(), Lock()
        self._used: defaultdict[str, float] = defaultdict(float)
        self._counters: dict[str, Counter] = {}
        self._life = uuid.uuid4().hex
        self._measures: dict[tuple[str, MeasureConfig], Measure] = {}
        if run.config.cluster.gpus_per_actor == 0:  # other actors compute on the cores it would take
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    def measure(self, request: Request, name: str) -> dict[str, Any]:
        """Measure one part and write its file; what was counted.

        Raises EngineFailureError when a fresh process has to try again.
        """
        started, model = time.perf_counter(), request.model
        try:
            engine = self._engine_of(model)
            measure = self._measure_of(request)
            rows = self._run.store.read_table(f"{request.items}/{name}")
            table = measures.rows_of(request.measure, measure, engine, rows, model.stage)
            if self._model != model:
                raise EngineError("the scorer was given another model while it measured a part")
        except EngineError as error:
            raise EngineFailureError(str(error), self._life) from error
        self._run.store.write_table(f"{request.into}/{name}", table)
        self._note(engine.usage() | {"parts": 1.0, "part_seconds": time.perf_counter() - started})
        return measures.count(table)

    def pulse(self) -> Pulse | None:
        """Signs of life of engine and measures, asked while they work; None while a model is loaded."""
        engine = self._engine
        if engine is None or self._model is None:
            return None
        pulse, beats = engine.pulse(), sum(measure.beats for measure in list(self._measures.values()))
        return replace(pulse, steps=pulse.steps + beats)

    def _measure_of(self, request: Request) -> Measure:
        """Kept from part to part: a grader of the user's has a process that stays up."""
        with self._loading:
            key = (request.measure, request.how)
            if key not in self._measures:
                config = self._run.config.model_copy(update={"measure": request.how})
                self._measures[key] = measures.load(request.measure, config)
            return self._measures[key]

    def usage(self) -> dict[str, float]:
        """Amounts of work since the last call, and the rates that follow from them."""
        with self._counting:
            used, self._used = dict(self._used), defaultdict(float)
        return used | rates(used)

    def _note(self, amounts: Mapping[str, float]) -> None:
        """Add amounts of work, also to Ray's metrics (``zpd_ray_`` and the name)."""
        with self._counting:
            for name, amount in amounts.items():
                self._used[name] += amount
                if name not in self._counters:
                    self._counters[name] = Counter(f"zpd_ray_{name}", "work of a scoring actor")
                self._counters[name].inc(max(0.0, amount))

    def settings(self) -> dict[str, Any]:
        """Those of the engine; empty when none was needed."""
        return {} if self._engine is None else self._engine.settings()

    def memory(self) -> dict[str, float]:
        """Bytes at the peak (``memory.peak_here``)."""
        return peak_here(self._run.config.cluster.gpus_per_actor)

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
        local = self._run.store.fetched(model, directory.name)
        if self._engine is None:
            started = time.perf_counter()
            self._engine = engines.load(self._run.config, local, self._longest())
            self._note({"start_seconds": time.perf_counter() - started})
        else:
            self._engine.follow(local)
        self._copy = directory  # and the copy of the model before is deleted
        if model.canary is not None:
            canary = self._run.store.read_table(model.canary)
            check_canary(self._engine, canary, tolerance(self._run.config), model)
        self._model = model

    def _longest(self) -> int | None:
        """Tokens of the longest row or prompt with completion, of pool and evaluation set."""
        names = [f"{items}.json" for items in (POOL, EVALUATION)]
        pools = [self._run.store.read_json(name) for name in names if self._run.store.exists(name)]
        new = self._run.config.measure.max_new_tokens
        longest = [max(pool["longest"], pool["longest_prompt"] + new) for pool in pools if "longest" in pool]
        return max(longest, default=None)
