"""A plan to look at, from rates that are made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from zpd_ray.config import Config
from zpd_ray.config_file import validate
from zpd_ray.plan.estimate import EMPTY, Group, Plan, Source, plan
from zpd_ray.plan.rates import Line, Memory, Phases, Rates
from zpd_ray.plan.room import Node, room

POOL = Source(10_500, 10_000, 600_000, 400_000, 20, {"a": Group(9000, 800_000), "b": Group(1000, 200_000)})
EVALUATION = replace(POOL, items=1000, prompt_tokens=60_000, response_tokens=40_000, parts=2)
RATES = Rates(
    start=5.0,
    ingest=Line(3.0, 1e-4),
    rehearse=1.0,
    engine_start=4.0,
    engine_again=0.5,
    measuring=Phases(Line(0.5, 1e-4, 2e-6, 1e5, 0.1), Line(0.6, 2e-4, 4e-6, 1e5, 0.1)),
    evaluating=Phases(Line(0.4, 1e-4), Line(0.4, 1e-4)),
    fit=Phases(Line(0.5, 1e-5), Line(0.3, 1e-5)),
    select=Phases(Line(1.0, 4e-5), Line(0.5, 4e-5)),
    train_start=(6.0, 1.0),
    training=Line(0.0, 0.01, 0.001),
    read=1.0,
    generated=30.0,
    actor=Memory(2.0),
    worker=Memory(3.0),
    end=2.0,
)


def config_of(**sections: Any) -> Config:
    values: dict[str, Any] = {
        "output": "out",
        "stages": 3,
        "pool": {"path": "pool.jsonl"},
        "model": {"path": "model"},
        "select": {"budget": {"fraction": 0.05}},
        "cluster": {"actors": 4, "cpus_per_actor": 1, "cpus_per_train_worker": 4},
    }
    for name, section in sections.items():
        values[name] = values.get(name, {}) | section if isinstance(section, dict) else section
    return validate(values)


def plan_of(pool: Source = POOL, rates: Rates = RATES, evaluation: Source = EMPTY, **sections: Any) -> Plan:
    config = config_of(**sections)
    placed = room(config, [Node("one", 16, 8, 64.0)], True, rates.actor, rates.worker)
    return plan(config, pool, evaluation, rates, placed, "a sample", ["a warning"])
