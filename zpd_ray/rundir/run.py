"""A run: its config and its directory. What every step needs, and can be sent to any process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from zpd_ray import graders, selection
from zpd_ray.config import Config
from zpd_ray.engines.base import ModelRef
from zpd_ray.rundir.layout import ADOPTED, ANSWERS, EVALUATE, POOL, PROBES, STEPS, TRAIN, StageFiles, Step
from zpd_ray.rundir.store import Store


@dataclass(frozen=True)
class Run:
    """The config of a run and the store that holds its files."""

    config: Config
    store: Store

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of each stage, in order."""
        return tuple(step for step in STEPS if step != TRAIN or self.trains)

    @property
    def trains(self) -> bool:
        """Whether stages train a model."""
        return self.config.train.method != "none"

    @property
    def overlaps(self) -> bool:
        """Whether a stage is measured while the one before trains."""
        return self.config.cluster.placement == "split" and self.trains

    @property
    def methods(self) -> list[str]:
        """Selection methods by name: the one that is trained on first."""
        return list(dict.fromkeys([self.config.select.method, *self.config.select.beside]))

    @property
    def measures(self) -> list[str]:
        """What is measured of each item: ``answers``, and what the methods in use need."""
        needs = (name for method in self.methods for name in selection.load(method).needs)
        return list(dict.fromkeys([ANSWERS, *needs]))

    def finished(self, stage: int, step: Step) -> bool:
        """Whether a step of a stage has ended."""
        return self.store.exists(StageFiles(stage).closing(step))

    def adopted(self, stage: int) -> bool:
        """Whether a stage was closed with a model that was trained elsewhere."""
        closed = self.finished(stage, TRAIN)
        return closed and ADOPTED in self.store.read_json(StageFiles(stage).closing(TRAIN))

    def first_open_stage(self) -> int:
        """The stage that the next step belongs to; the last one when all are finished."""
        stages = range(self.config.stages)
        return next((t for t in stages if not self.finished(t, EVALUATE)), self.config.stages - 1)

    def staleness(self, stage: int) -> int:
        """How many stages of training the measured model of ``stage`` is behind the one that trains."""
        return int(self.overlaps and stage > 0)

    def measured_anew(self, stage: int) -> bool:
        """Whether a stage was measured by another model than the stage before it."""
        return stage == 0 or stage > self.staleness(stage)

    def in_rounds(self, stage: int) -> bool:
        """Whether a stage measures some items, in rounds, and not all of them."""
        return stage > 0 and self.config.measure.scope != "pool"

    def only_measured(self, stage: int, method: str) -> bool:
        """Whether a method chooses among what the stage has measured: the one trained on, in scope zone.

        A method beside it chooses from the pool: the others' candidates would not show what it is worth.
        """
        return self.in_rounds(stage) and self.config.measure.scope == "zone" and method == self.methods[0]

    def probe_rows(self, part: str, first: int | None = None) -> NDArray[np.int64]:
        """Rows of a part that are probes, of the ``first`` ones in their order (None: of all); ascending."""
        if self.config.measure.scope == "pool" or not self.store.exists(PROBES):
            return np.zeros(0, dtype=np.int64)
        probes = self.store.read_table(PROBES).slice(0, first)
        return np.sort(probes["row"].to_numpy()[pc.equal(probes["part"], part).to_numpy()])

    def model(self, stage: int) -> ModelRef:
        """The model that ``stage`` begins with: the base model, or what the stage before has trained."""
        train = self.config.train
        if stage == 0 or not self.trains:
            return ModelRef(self.config.model.path, None, stage)
        before = StageFiles(stage - 1)
        trained = f"{self.store.root}/{before.directory}/{train.result}"
        canary = None if train.function and not self.adopted(stage - 1) else before.canary
        if train.method == "lora":
            return ModelRef(self.config.model.path, trained, stage, canary)
        return ModelRef(trained, None, stage, canary)

    def family(self, model: ModelRef) -> str:
        """Path of the weights that ``model`` can be swapped with in a loaded engine, and of its tokenizer."""
        ours = model.base.startswith(f"{self.store.root}/")  # what a stage has trained of all weights
        return self.config.model.path if ours else model.base

    def trained_before(self, stage: int, part: str, n: int) -> NDArray[np.bool_]:
        """Which of the ``n`` items of a part were in the selection of an earlier stage: (n,)."""
        trained = np.zeros(n, dtype=bool)
        for earlier in range(stage):
            trained[self.chosen_rows(earlier, part)] = True
        return trained

    def chosen_rows(self, stage: int, part: str) -> NDArray[np.int64]:
        """Rows of a part that a stage has selected."""
        chosen = f"{StageFiles(stage).selection()}/chosen/{part}"
        rows: NDArray[np.int64] = self.store.read_table(chosen, ["row"])["row"].to_numpy()
        return rows

    def options(self, part: str, n: int) -> NDArray[np.int64]:
        """Among how many options each of a part's ``n`` items may be guessed; 0 where it cannot be: (n,)."""
        grader = graders.load(self.config.measure.grader)
        if not grader.guessable:
            return np.zeros(n, dtype=np.int64)
        return grader.options(self.store.read_table(f"{POOL}/{part}", ["choices"])["choices"])
