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
from zpd_ray.rundir.row_groups import GROUP_ROWS


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

    run: Run
    measure: str
    how: MeasureConfig
    model: ModelRef
    items: str
    into: str


class Scorer:
    """The actor. Every call names its run and model, so that a restarted scorer knows what to load."""

    def __init__(self, gpus: float) -> None:
        """Nothing is loaded before the first part. gpus: that it has."""
        self._gpus = gpus
        self._engine: Engine | None = None
        self._loaded: tuple[str, ModelRef] | None = None  # the run directory, and the model in the engine
        self._copy: Any = None  # the directory that holds the model, where the run directory is remote
        self._loading, self._counting = Lock(), Lock()
        self._used: defaultdict[str, float] = defaultdict(float)
        self._counters: dict[str, Counter] = {}
        self._life = uuid.uuid4().hex
        self._measures: dict[tuple[str, MeasureConfig], Measure] = {}  # of that run
        if gpus == 0:  # other actors compute on the cores it would take
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    def measure(self, request: Request, name: str) -> dict[str, Any]:
        """Measure one part and write its file; what was counted.

        Raises EngineFailureError when a fresh process has to try again.
        """
        started, model, store = time.perf_counter(), request.model, request.run.store
        try:
            engine = self._engine_of(request)
            measure = self._measure_of(request)
            rows = store.read_table(f"{request.items}/{name}")
            table = measures.rows_of(request.measure, measure, engine, rows, model.stage)
            if self._loaded != (store.root, model):
                raise EngineError("the scorer was given another model while it measured a part")
        except EngineError as error:
            raise EngineFailureError(str(error), self._life) from error
        # Of the model's own responses those are read that are trained on.
        own = request.run.config.train.target == "own" and "own" in table.column_names
        store.write_table(f"{request.into}/{name}", table, GROUP_ROWS if own else None)
        self._note(engine.usage() | {"parts": 1.0, "part_seconds": time.perf_counter() - started})
        return measures.count(table)

    def pulse(self) -> Pulse | None:
        """Signs of life of engine and measures, asked while they work; None while a model is loaded."""
        engine = self._engine
        if engine is None or self._loaded is None:
            return None
        pulse, beats = engine.pulse(), sum(measure.beats for measure in list(self._measures.values()))
        return replace(pulse, steps=pulse.steps + beats)

    def _measure_of(self, request: Request) -> Measure:
        """Kept from part to part: a grader of the user's has a process that stays up."""
        with self._loading:
            key = (request.measure, request.how)
            if key not in self._measures:
                config = request.run.config.model_copy(update={"measure": request.how})
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
        return peak_here(self._gpus)

    def end(self, life: str) -> None:
        """End this process, unless it is another one than the caller has met: it was restarted already."""
        if life == self._life:
            os._exit(1)

    def _engine_of(self, request: Request) -> Engine:
        with self._loading:
            if self._engine is None or self._loaded != (request.run.store.root, request.model):
                self._load(request.run, request.model)
            assert self._engine is not None
            return self._engine

    def _load(self, run: Run, model: ModelRef) -> None:
        """Weights into the engine, checked against what their trainer expects."""
        if self._loaded is not None and self._loaded[0] != run.store.root:
            self._measures.clear()  # they hold another run's config
        self._loaded = None  # until the canary lives
        directory = tempfile.TemporaryDirectory(prefix="zpd-ray-")
        local = run.store.fetched(model, directory.name)
        if self._engine is None:
            started = time.perf_counter()
            self._engine = engines.load(run.config, local, _longest(run))
            self._note({"start_seconds": time.perf_counter() - started})
        else:
            self._engine.follow(local)
        self._copy = directory  # and the copy of the model before is deleted
        if model.canary is not None:
            canary = run.store.read_table(model.canary)
            check_canary(self._engine, canary, tolerance(run.config), model)
        self._loaded = run.store.root, model


def _longest(run: Run) -> int | None:
    """Tokens of the longest row or prompt with completion, of pool and evaluation set."""
    names = [f"{items}.json" for items in (POOL, EVALUATION)]
    pools = [run.store.read_json(name) for name in names if run.store.exists(name)]
    new = run.config.measure.max_new_tokens
    longest = [max(pool["longest"], pool["longest_prompt"] + new) for pool in pools if "longest" in pool]
    return max(longest, default=None)
