"""Timing the measuring of random batches of items, by all scoring actors at once."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zpd_ray import measures
from zpd_ray.config import Config
from zpd_ray.engines.base import ModelRef
from zpd_ray.pipeline.cluster.parts import part_name
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.pipeline.measure.measure import measure
from zpd_ray.pipeline.measure.scorers import IN_HAND
from zpd_ray.plan.estimate import Source, busiest
from zpd_ray.plan.rates import Line, fit_line
from zpd_ray.readers.lengths import longest_prompt
from zpd_ray.registry import label
from zpd_ray.rundir.records import load_events
from zpd_ray.rundir.store import Store

POOL, ONCE = "batches", "batches-once"  # directories: as the pool is measured, or with one response each
GROWTH = 8  # at most, from one batch to the next
CLEAR, PATIENT = 3, 6  # times the first batch, which is mostly overhead; unless that is very long
WITHIN = 8  # batches that are this much smaller than the last say nothing of a busy engine


@dataclass(frozen=True)
class Timed:
    """A batch. work: item tokens of the actor that had most."""

    items: int
    work: float
    seconds: float


@dataclass
class Batches:
    """Random batches of a sample (schema.ITEM), drawn anew each time. seconds: that the last ones take.

    largest: items of one that took as long. done: items and tokens by directory, and what
    ``measures.count`` counts.
    """

    session: Session
    sample: pa.Table
    seconds: float
    random: np.random.Generator
    count: int = 0
    largest: int = 0
    done: Counter[str] = field(default_factory=Counter)

    def line(self, model: ModelRef, names: list[str], begin: int, rollouts: int | None = None) -> Line:
        """Seconds over ``Timed.work``, from batches that grow until they take long enough."""
        timed = [self.time(model, names, begin, rollouts)]
        while self._too_short(timed) and timed[-1].items < self.sample.num_rows:
            factor = min(GROWTH, max(2.0, self.seconds / timed[-1].seconds))
            timed.append(self.time(model, names, round(factor * timed[-1].items), rollouts))
        self.largest = last = timed[-1].items
        for items in (last, last // 4, last):
            timed.append(self.time(model, names, items, rollouts))
        used = [each for each in timed if each.items >= last / WITHIN]
        return fit_line([each.work for each in used], [each.seconds for each in used])

    def _too_short(self, timed: list[Timed]) -> bool:
        """Whether the last one took hardly longer than what any batch takes."""
        first, last = timed[0].seconds, timed[-1].seconds
        return last < self.seconds or (last < CLEAR * first and last < PATIENT * self.seconds)

    def time(self, model: ModelRef, names: list[str], items: int, rollouts: int | None = None) -> Timed:
        """Take measures of so many items with a model."""
        items = max(1, min(items, self.sample.num_rows))
        batch = self.sample.take(self.random.permutation(self.sample.num_rows)[:items])
        kind = POOL if rollouts is None else ONCE
        directory, self.count = f"{kind}/{self.count:03d}", self.count + 1
        source = write_parts(self.session, f"{directory}/items", batch)
        started = time.perf_counter()
        for name in names:
            asked = measures.load(name, self.session.run.config).model(model)
            into = f"{directory}/{label(name)}"
            counts = measure(self.session, name, asked, f"{directory}/items", into, rollouts)
            self.done.update({f"measured {key}": count for key, count in counts.items()})
        seconds = time.perf_counter() - started
        self.done.update({f"{kind} items": items, f"{kind} tokens": source.tokens})
        return Timed(items, busiest(source, self.session.run.config.cluster.actors), seconds)


def used(store: Store, into: str) -> dict[str, float]:
    """Work that scorers told of, summed over what was measured into directories below ``into``."""
    total: dict[str, float] = {}
    for event in load_events(store):
        if event.step == "scored" and event.details["into"].startswith(into):
            for scorer in event.details["scorers"]:
                for name, amount in scorer.items():
                    total[name] = total.get(name, 0.0) + amount
    return total


def write_parts(session: Session, directory: str, items: pa.Table) -> Source:
    """Items as a pool of their own, in parts like a run's, fewer items in each where there are few."""
    run, rows = session.run, items.num_rows
    actors = run.config.cluster.actors
    each = min(run.config.pool.items_per_part, -(-rows // (actors * IN_HAND)))
    starts = range(0, rows, each)
    for number, start in enumerate(starts):
        run.store.write_table(f"{directory}/{part_name(number)}", items.slice(start, each))
    summary = summary_of(run.config, items)
    run.store.write_json(f"{directory}.json", summary)
    counts = (rows, rows, summary["prompt_tokens"], summary["response_tokens"])
    return Source(*counts, parts=len(starts))


def summary_of(config: Config, items: pa.Table) -> dict[str, int]:
    """What pool.json says of items."""
    prompt, response = items["prompt_tokens"].to_numpy(), items["response_tokens"].to_numpy()
    return {
        "items": items.num_rows,
        "prompt_tokens": int(prompt.sum()),
        "response_tokens": int(response.sum()),
        "longest": int((prompt + response).max()),
        "longest_prompt": longest_prompt(config, items),
        "shortest_response": int(pc.min(items["response_tokens"]).as_py()),
    }
