"""A run in small: the steps of ``pipeline.run`` on a sample, timed, with the run's own actors and workers."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from zpd_ray import graders
from zpd_ray.config import Budget
from zpd_ray.engines.base import ModelRef
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.pipeline.fit.ability import fit_ability, part_statistics
from zpd_ray.pipeline.measure.measure import measure_pool
from zpd_ray.pipeline.plan.batches import ONCE, Batches, summary_of, used, write_parts
from zpd_ray.pipeline.plan.batches import POOL as BATCHES
from zpd_ray.pipeline.plan.pool import Read, cores, sample_of
from zpd_ray.pipeline.select.select import select_items
from zpd_ray.pipeline.train import train as training
from zpd_ray.pipeline.train.rehearsal import GIB, longest_items, try_step
from zpd_ray.plan.rates import Line, Memory, Phases, mean_line
from zpd_ray.plan.scopes import budget_items
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import ANSWERS, EVALUATION, POOL
from zpd_ray.rundir.records import load_fit

SAMPLE = 20_000  # items that batches are drawn from, at most
FEW = 64  # items of the run in small, at least
SHARE = 4  # of which a stage trains on one in so many
STEPS = 4  # optimiser steps that are timed, at least
PASSES = 4  # over the pool, to select; a fit takes one
BLOCKS = 4  # of a stage's steps, whose rates are compared


@dataclass(frozen=True)
class Step:
    """A training step on the longest items: whole (with the start of its process) and alone, seconds."""

    whole: float
    alone: float
    rows: int
    gib: float


@dataclass(frozen=True)
class Judged:
    """Seconds to fit and to select, over ``items``."""

    fit: float
    select: float
    items: int


@dataclass(frozen=True)
class Trained:
    """A stage's training. marks: (seconds since its begin, rows of all workers that are done)."""

    seconds: float
    rows: int
    marks: list[tuple[float, float]]


@dataclass(frozen=True)
class Engine:
    """Seconds to load a model, and to measure items of the pool and of the evaluation set with it."""

    loading: float
    pool: Line
    once: Line


@dataclass(frozen=True)
class Course:
    """The run in small. beside: actors stayed up while workers trained. tuned: with a trained model."""

    first: Judged
    later: Judged
    trained: list[Trained]
    beside: bool
    tuned: Engine


class Trial:
    """The run in small: ``session.run``, on a sample of what was read. seconds: of its longest batches.

    All methods raise what the steps of a run raise.
    """

    def __init__(self, session: Session, real: Run, read: Read, seconds: float) -> None:
        """real: the run that is planned."""
        self.session, self.real, self.read, self.seconds = session, real, read, seconds
        self.sample = sample_of(read.store, POOL, SAMPLE, real.config.seed)
        random = np.random.default_rng(real.config.seed)
        self.batches = Batches(session, self.sample, seconds, random)
        self.begin = 8 * real.config.cluster.actors  # items of the first batches
        how = real.config.measure
        self.once = graders.load(how.grader).needs_completion and how.rollouts > 1
        self.trained = 0
        self.write_pool(self.sample)

    def write_pool(self, items: pa.Table) -> None:
        """These are the pool of the run in small; engines are planned for the longest of the real one."""
        store = self.session.run.store
        store.remove(POOL)
        write_parts(self.session, POOL, items)
        summary = summary_of(self.session.run.config, items)
        for name in (POOL, EVALUATION):
            if self.read.store.exists(f"{name}.json"):
                known = self.read.store.read_json(f"{name}.json")
                summary |= {key: known[key] for key in ("longest", "longest_prompt")}
                store.write_json(f"{name}.json", summary)

    def step(self) -> Step:
        """One training step on the longest items that were read."""
        started = time.perf_counter()
        items = longest_items(self.real.config, self.read.store, self.real.config.train.micro_batch_size)
        seen = try_step(self.real.config, items)
        whole = time.perf_counter() - started
        return Step(whole, seen["step_seconds"], items.num_rows, seen["gib"])

    def engine(self, model: ModelRef, begin: int) -> Engine:
        """Time the engines with a model; begin: items of the first batch that counts."""
        names, batches = self.real.measures, self.batches
        begun = batches.time(model, names[:1], 2 * self.real.config.cluster.actors)
        pool = batches.line(model, names, begin)
        largest = batches.largest
        once = batches.line(model, [ANSWERS], begin, rollouts=1) if self.once else pool
        batches.largest = largest
        return Engine(max(0.0, begun.seconds - pool.at(begun.work).seconds), pool, once)

    def work(self) -> tuple[float, float]:
        """Tokens that the engine read per token of the items, and generated per item, with all rollouts."""
        told, done = used(self.session.run.store, f"{BATCHES}/"), self.batches.done
        return (
            told.get("prefill_tokens", 0.0) / done[f"{BATCHES} tokens"],
            told.get("decode_tokens", 0.0) / done[f"{BATCHES} items"],
        )

    def shrink(self, step: Step | None) -> None:
        """From here on the pool is as large as the largest batch, and a stage trains for some seconds."""
        config, train = self.session.run.config, self.real.config.train
        items = min(self.sample.num_rows, max(self.batches.largest, FEW))
        self.write_pool(self.sample.slice(0, items))
        whole = budget_items(config, self.read.pool.items, self.read.pool.response_tokens)
        budget = max(1, min(items // SHARE, whole))
        wanted = min(whole * train.epochs, self._steps(step) * train.batch_size)
        changed = {
            "ability": config.ability.model_copy(update={"allow_extreme": True}),
            "select": config.select.model_copy(update={"budget": Budget(items=budget)}),
            "train": train.model_copy(update={"epochs": max(1, math.ceil(wanted / budget))}),
        }
        self.session.run = Run(config.model_copy(update=changed), self.session.run.store)

    def _steps(self, step: Step | None) -> int:
        """Optimiser steps that take ``seconds``, as the first one did."""
        train = self.real.config.train
        if step is None:
            return STEPS
        micro = math.ceil(train.batch_size / train.workers / train.micro_batch_size)
        return max(STEPS, math.ceil(self.seconds / (step.alone * micro)))

    def course(self, base: Engine) -> Course:
        """The stages of the run in small, at most two; base: what was timed with the base model."""
        first, trained, beside, tuned = self.judge(0), list[Trained](), True, base
        if self.real.trains:
            trained.append(self.train(0))
            beside = self.session.scores
            tuned = self.engine(self.session.run.model(1), self.batches.largest // 2)
        later = first
        if self.real.config.stages > 1:
            later = self.judge(1)
            trained += [self.train(1)] if self.real.trains else []
        self.trained = sum(each.rows for each in trained)
        return Course(first, later, trained, beside, tuned)

    def judge(self, stage: int) -> Judged:
        """Measure, fit and select."""
        measure_pool(self.session, stage)
        run, began = self.session.run, time.perf_counter()
        fit_ability(self.session, stage)
        fitted = time.perf_counter()
        for method in run.methods[1:]:
            select_items(run, load_fit(run.store, stage), method, beside=True)
        select_items(run, load_fit(run.store, stage), run.methods[0])
        items = run.store.read_json(f"{POOL}.json")["items"]
        return Judged(fitted - began, time.perf_counter() - fitted, items)

    def train(self, stage: int) -> Trained:
        """Train on what was selected."""
        began, done = time.perf_counter(), 0
        marks: list[tuple[float, float]] = []
        task = training.prepare(self.session, stage)

        def advance(rows: int) -> None:
            nonlocal done
            done += rows
            if rows:
                marks.append((time.perf_counter() - began, done * sum(task.rows) / task.rows[0]))

        self.session.train_job().train(task, advance)
        self.session.rest_after_training()
        return Trained(time.perf_counter() - began, sum(task.rows), marks[:-1])  # the last: it has ended

    def item_seconds(self) -> float:
        """What a pass over an item's measurement costs: timed in this process, shared by the cores."""
        run = self.session.run
        name = run.store.names(POOL)[0]
        began = time.perf_counter()
        part_statistics(run, 0, name, True)
        rows = run.store.read_table(f"{POOL}/{name}", ["item_id"]).num_rows
        return (time.perf_counter() - began) / rows / cores()

    def sample_told(self) -> str:
        """What was timed, in words."""
        done = sum(self.batches.done[f"{kind} items"] for kind in (BATCHES, ONCE))
        told = f"{done:,} measurements of {self.sample.num_rows:,} items"
        return told + (f" and {self.trained:,} rows of training" if self.trained else "")

    def warnings(self) -> list[str]:
        """What would end the run, had all items been measured so: small batches may exceed its limits."""
        done, how = self.batches.done, self.real.config.measure
        told = []
        for what, of, limit, key in (
            ("failed", "items", how.max_failed_share, "max_failed_share"),
            ("unparsed", "responses", how.max_unparsed_share, "max_unparsed_share"),
        ):
            found, all_of = done[f"measured {what}"], done[f"measured {of}"]
            if found > limit * all_of:
                told.append(
                    f"{found} of {all_of} {of} {what}; the run stops beyond measure.{key} = {limit:g}"
                )
        return told

    def actor_memory(self) -> Memory:
        """Of the actor that has taken most."""
        pool = self.session.scorers(self.session.run.model(0))
        told = pool.ask("memory", range(len(pool.actors))).values()
        peaks = [Memory(*(each[name] / GIB for name in ("main", "gpu", "gpu_has"))) for each in told]
        return max(peaks, key=lambda each: (each.gpu, each.main), default=Memory())


def judging(first: Judged, later: Judged, each: float) -> tuple[Phases, Phases]:
    """Seconds of fit and of select over items; each: of a pass, per item."""

    def line(seconds: float, items: int, each: float) -> Line:
        each = min(each, seconds / items)
        return Line(seconds - each * items, each)

    fit = Phases(line(first.fit, first.items, each), line(later.fit, later.items, each))
    each *= PASSES
    return fit, Phases(line(first.select, first.items, each), line(later.select, later.items, each))


def training_line(
    trained: list[Trained], step: Step | None, workers: int
) -> tuple[tuple[float, float], Line]:
    """Seconds of a training step beside its rows, at the first stage and later; and over rows.

    From how the rows advanced; where they were done too soon to see it, from the step that was tried.
    """
    if not trained:
        return (0.0, 0.0), Line(0.0, 0.0)
    blocks = [block for each in trained for block in _blocks(each.marks)]
    if blocks:
        line = mean_line([seconds for seconds, _ in blocks], [rows for _, rows in blocks])
    else:
        each = step.alone / (step.rows * workers) if step is not None else 0.0
        line = Line(0.0, each, each)
    beside = [max(0.0, each.seconds - line.each * each.rows) for each in trained]
    return (beside[0], beside[-1]), line


def _blocks(marks: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """(seconds, rows) of about equal stretches between marks."""
    if len(marks) < 2:
        return []
    ends = [marks[i] for i in np.unique(np.linspace(0, len(marks) - 1, BLOCKS + 1).astype(int))]
    return [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(ends)]


def worker_memory(step: Step | None, on_gpu: bool, gpu_has: float) -> Memory:
    """Of a train worker, as the step that was tried."""
    if step is None:
        return Memory()
    return Memory(0.0, step.gib, gpu_has) if on_gpu else Memory(step.gib)
