"""The plan: per scope and stage what is measured and trained, in tokens, seconds and GPU-hours."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import zip_longest

from zpd_ray.config import Config
from zpd_ray.plan.rates import Memory, Rates, Seconds, in_step
from zpd_ray.plan.room import Room
from zpd_ray.plan.scopes import RANDOM, SCOPES, ZONE, budget_items, measured_items, rounds

NONE = Seconds(0.0)
HOUR = 3600.0


@dataclass(frozen=True)
class Group:
    """Items of a group of the pool, and their tokens of prompt and response."""

    items: int
    tokens: int


@dataclass(frozen=True)
class Source:
    """Pool or evaluation set.

    rows: of its files. parts: units of work. groups: by name ("" for none), of an estimated pool in the
    proportions of the sample. items_se: standard error of ``items``, 0 where they were counted. told: how
    they were counted or estimated.
    """

    rows: int
    items: int
    prompt_tokens: int
    response_tokens: int
    parts: int
    groups: dict[str, Group] = field(default_factory=dict)
    items_se: float = 0.0
    told: str = "counted"

    @property
    def tokens(self) -> int:
        """Of prompts and responses."""
        return self.prompt_tokens + self.response_tokens


EMPTY = Source(0, 0, 0, 0, 0)


@dataclass(frozen=True)
class StageCost:
    """What a stage takes, in the words of ``report.cost``.

    measured: items. read, generated, trained: tokens; trained: response tokens of the optimiser's steps,
    epochs included. Hours: of all GPUs, or CPUs, that scoring actors or train workers hold meanwhile.
    """

    measured: int
    read: int
    generated: int
    trained: int
    selecting: Seconds
    training: Seconds
    evaluating: Seconds
    selecting_gpu_hours: float
    training_gpu_hours: float
    selecting_cpu_hours: float
    training_cpu_hours: float

    @property
    def ratio(self) -> float | None:
        """Seconds of selecting per second of training; None where nothing is trained."""
        return self.selecting.seconds / self.training.seconds if self.training.seconds else None


@dataclass(frozen=True)
class ScopePlan:
    """A scope. total: of all stages. ratio: of selecting to training. whole: from command to end."""

    scope: str
    stages: list[StageCost]
    total: StageCost
    ratio: float | None
    whole: Seconds


@dataclass(frozen=True)
class Plan:
    """What a run will take.

    scope: that the config asks for. base: seconds of evaluating the base model, the engine's start included.
    before, after: seconds of what comes before the stages and behind them, by name. sample: what was timed.
    warnings: sentences.
    """

    output: str
    method: str
    scope: str
    pool: Source
    evaluation: Source
    budget: int
    before: dict[str, Seconds]
    base: Seconds
    after: Seconds
    scopes: list[ScopePlan]
    room: Room
    actor: Memory
    worker: Memory
    sample: str
    warnings: list[str]


def plan(
    config: Config,
    pool: Source,
    evaluation: Source,
    rates: Rates,
    room: Room,
    sample: str,
    warnings: list[str],
) -> Plan:
    """All scopes, by these rates. Raises ZpdError when the budget is larger than the pool."""
    budget = budget_items(config, pool.items, pool.response_tokens)
    before = {"starting": Seconds(rates.start), "reading the pool": _ingesting(pool, evaluation, rates)}
    if rates.rehearse:
        before["trying a training step"] = Seconds(rates.rehearse)
    base = _evaluating(config, evaluation, rates, 0)
    end = Seconds(rates.end)
    scopes = []
    for scope in SCOPES:
        stages = [_stage(config, scope, t, pool, evaluation, budget, rates) for t in range(config.stages)]
        whole = sum([*before.values(), base, _wall(config, stages), end], NONE)
        total = _total(stages)
        scopes.append(ScopePlan(scope, stages, total, total.ratio, whole))
    method, output = config.select.method, config.output
    return Plan(
        *(output, method, config.measure.scope, pool, evaluation, budget, before, base, end, scopes, room),
        *(rates.actor, rates.worker, sample, warnings),
    )


def _stage(
    config: Config, scope: str, stage: int, pool: Source, evaluation: Source, budget: int, rates: Rates
) -> StageCost:
    cluster, train = config.cluster, config.train
    measured = measured_items(config, scope, stage, pool.items, pool.response_tokens)
    share = measured / pool.items
    selecting = rates.select.of(stage).at(pool.items)
    if scope != RANDOM:
        selecting += _judging(config, scope, stage, pool, share, rates)
        selecting += Seconds(0.0 if evaluation.items else _engine(config, rates, stage))
    trains = train.method != "none"
    training = rates.training.at(budget * train.epochs) if trains else NONE
    training += Seconds(rates.train_start[min(stage, 1)] if trains else 0.0)
    return StageCost(
        measured,
        round(share * pool.tokens * rates.read),
        round(measured * rates.generated),
        round(budget * _trained_tokens(config, pool, rates) * train.epochs) if trains else 0,
        selecting,
        training,
        _evaluating(config, evaluation, rates, stage + 1),
        selecting.seconds * cluster.actors * cluster.gpus_per_actor / HOUR,
        training.seconds * train.workers * cluster.gpus_per_train_worker / HOUR,
        selecting.seconds * cluster.actors * cluster.cpus_per_actor / HOUR,
        training.seconds * train.workers * cluster.cpus_per_train_worker / HOUR,
    )


def _trained_tokens(config: Config, pool: Source, rates: Rates) -> float:
    """Of an item: its reference's or, where the model's own alone are trained on, those of one response."""
    if config.only_own:
        return rates.generated / config.measure.rollouts
    return pool.response_tokens / pool.items


def _judging(config: Config, scope: str, stage: int, pool: Source, share: float, rates: Rates) -> Seconds:
    """To measure a share of the pool's items, whose lengths are like those of the others, and to fit."""
    measuring, fit = rates.measuring.of(stage), rates.fit.of(stage)
    calls, fits = rounds(config, scope, stage, pool.items)
    work = measuring.at(busiest(pool, config.cluster.actors) * share)
    uncertain = pool.items_se / pool.items * work.seconds  # of an estimated pool
    more = (calls - 1) * measuring.fixed + (fits - 1) * fit.fixed
    if scope == ZONE and stage:
        more += rates.select.of(stage).fixed  # which finds the candidates
    return work + Seconds(more, uncertain) + fit.at(share * pool.items)


def busiest(source: Source, actors: int) -> float:
    """Tokens of the actor that has most: parts are dealt whole, to whichever actor is free."""
    parts = max(1, source.parts)
    return source.tokens * math.ceil(parts / actors) / parts


def _evaluating(config: Config, evaluation: Source, rates: Rates, models: int) -> Seconds:
    """Of the evaluation set, with the model that so many stages have trained."""
    if not evaluation.items:
        return NONE
    work = rates.evaluating.of(models).at(busiest(evaluation, config.cluster.actors))
    return work + Seconds(_engine(config, rates, models))


def _engine(config: Config, rates: Rates, models: int) -> float:
    """Seconds until the engine has the model that so many stages have trained."""
    if models == 0:
        return rates.engine_start
    return rates.engine_again if config.train.method != "none" else 0.0


def _ingesting(pool: Source, evaluation: Source, rates: Rates) -> Seconds:
    return rates.ingest.at(pool.rows + evaluation.rows)


def _wall(config: Config, stages: list[StageCost]) -> Seconds:
    """One after the other; where nodes are split, a stage trains while the next one is measured."""
    columns = [[getattr(each, name) for each in stages] for name in ("selecting", "training", "evaluating")]
    selecting, training, evaluating = columns
    if config.cluster.placement != "split" or config.train.method == "none":
        return sum((in_step(column) for column in columns), NONE)
    meanwhile = [
        before + now
        for before, now in zip_longest([NONE, *evaluating[:-1]], [*selecting[1:], NONE], fillvalue=NONE)
    ]
    longer = [max(pair, key=lambda each: each.seconds) for pair in zip(training, meanwhile, strict=True)]
    return in_step([selecting[0], *longer, evaluating[-1]])


def _total(stages: list[StageCost]) -> StageCost:
    names = ("measured", "read", "generated", "trained")
    counts = [sum(getattr(each, name) for each in stages) for name in names]
    seconds = [
        in_step(getattr(each, name) for each in stages) for name in ("selecting", "training", "evaluating")
    ]
    hours = ("selecting_gpu_hours", "training_gpu_hours", "selecting_cpu_hours", "training_cpu_hours")
    return StageCost(*counts, *seconds, *(sum(getattr(each, name) for each in stages) for name in hours))
