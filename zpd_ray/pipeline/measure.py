"""Measure a set of parts with a model: Ray Data over scoring actors, one finished file per part."""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from zpd_ray import engines, graders, schema
from zpd_ray.config import Config, MeasureConfig
from zpd_ray.engines import Engine, ModelRef, Scores
from zpd_ray.errors import ZpdError
from zpd_ray.graders import Grader
from zpd_ray.graders.greedy_match import matches
from zpd_ray.pipeline import parts
from zpd_ray.pipeline.progress import progress
from zpd_ray.pipeline.store import Store


def measure(config: Config, store: Store, model: ModelRef, items: str, into: str) -> dict[str, Any]:
    """Measure every part of directory ``items`` that has no file in directory ``into`` yet.

    Returns totals over all parts, those of earlier attempts included: items, failed, tokens, responses,
    right, unparsed. Raises ZpdError when more than ``measure.max_failed_share`` of the items failed.
    """
    names = store.names(items)
    finished = set(store.names(into))
    pending = [name for name in names if name not in finished]
    total = store.read_json(f"{items}.json")["items"]
    with progress(f"measuring {into}", total) as advance:
        counts: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
        example = ""
        done = [f"{into}/{name}" for name in names if name in finished]
        for row in parts.results(done, partial(_counts_of, store)):
            counts.update({key: row[key] for key in COUNTED})
            example = row["example"] or example
            advance(row["items"])
        for row in _run_actors(config, store, model, items, into, pending):
            counts.update({key: row[key] for key in COUNTED})
            example = row["example"] or example
            advance(row["items"])
            _check_failures(counts["failed"], total, config.measure, example)
    return dict(counts)


def _run_actors(
    config: Config, store: Store, model: ModelRef, items: str, into: str, pending: list[str]
) -> Any:
    if not pending:
        return iter(())
    cluster = config.cluster
    scored = parts.dataset_of(pending).map_batches(
        Measurer,
        fn_constructor_args=(config, store, model, items, into),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(cluster.actors, len(pending))),
        num_cpus=cluster.cpus_per_actor,
        num_gpus=cluster.gpus_per_actor,
    )
    return scored.iter_rows()


class Measurer:
    """The scoring actor: holds an engine, takes part after part."""

    def __init__(self, config: Config, store: Store, model: ModelRef, items: str, into: str) -> None:
        """Load the engine; a model that cannot be loaded stops the run here."""
        self.config, self.store, self.items, self.into = config, store, items, into
        self.stage = model.stage
        self.engine: Engine = engines.load(config, store.fetched(model))
        self.grader: Grader = graders.load(config.measure.grader)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Measure one part and write its file; the row that returns counts what was done."""
        name = batch["part"][0].as_py()
        started = time.perf_counter()
        items = self.store.read_table(f"{self.items}/{name}")
        table = measure_items(self.engine, self.grader, items, self.config.measure, self.stage)
        self.store.write_table(f"{self.into}/{name}", table)
        counts = count(table) | {"seconds": time.perf_counter() - started}
        return pa.Table.from_pylist([counts])


def measure_items(
    engine: Engine, grader: Grader, items: pa.Table, measure: MeasureConfig, stage: int
) -> pa.Table:
    """MEASUREMENT rows of ``items`` in the same order. The same items give the same bytes."""
    scores = engine.score(items)
    failed = np.array([error is not None for error in scores.error], dtype=bool)
    if grader.needs_completion:
        completions = engine.generate(items, measure.rollouts, stage)
        successes, rollouts, unparsed = _grade(grader, items, completions)
    else:
        successes = matches(scores.n_greedy, scores.n_tokens).astype(np.int32)
        rollouts, unparsed = np.ones_like(successes), np.zeros_like(successes)
    return _measurement(items, scores, failed, successes, rollouts, unparsed)


def _grade(
    grader: Grader, items: pa.Table, completions: list[list[str]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right answers, rollouts and unparsed responses per item: int32 (n,) each."""
    answers, choices = items["answer"].to_pylist(), items["choices"].to_pylist()
    verdicts = [
        [grader.grade(text, answer, options) for text in texts]
        for texts, answer, options in zip(completions, answers, choices, strict=True)
    ]
    right = [sum(v.right for v in row) for row in verdicts]
    unparsed = [sum(not v.parsed for v in row) for row in verdicts]
    return (
        np.array(right, dtype=np.int32),
        np.array([len(row) for row in verdicts], dtype=np.int32),
        np.array(unparsed, dtype=np.int32),
    )


def _measurement(
    items: pa.Table,
    scores: Scores,
    failed: np.ndarray,
    successes: np.ndarray,
    rollouts: np.ndarray,
    unparsed: np.ndarray,
) -> pa.Table:
    keep = ~failed  # a row that failed has no response either: it must not count as a wrong answer
    return pa.table(
        [
            items["item_id"].combine_chunks(),
            pa.array(scores.nll, pa.float32(), mask=failed),
            pa.array(scores.n_tokens, pa.int32()),
            pa.array(scores.n_greedy, pa.int32()),
            pa.array(successes * keep, pa.int32()),
            pa.array(rollouts * keep, pa.int32()),
            pa.array(unparsed * keep, pa.int32()),
            pa.array(scores.error, pa.string()),
        ],
        schema=schema.MEASUREMENT,
    )


COUNTED = ("items", "failed", "tokens", "responses", "right", "unparsed")


def count(table: pa.Table) -> dict[str, Any]:
    """Totals of a measured part, and one error text where there are any."""
    errors = table["error"].drop_null()
    return {
        "items": table.num_rows,
        "failed": len(errors),
        "tokens": sum_of(table, "n_tokens"),
        "responses": sum_of(table, "rollouts"),
        "right": sum_of(table, "successes"),
        "unparsed": sum_of(table, "unparsed"),
        "example": errors[0].as_py() if len(errors) else "",
    }


def sum_of(table: pa.Table, column: str) -> int:
    """Sum of an integer column; 0 for no rows."""
    return int(table[column].to_numpy().sum())


def _counts_of(store: Store, name: str) -> dict[str, Any]:
    return count(store.read_table(name))


def _check_failures(failed: int, total: int, measure: MeasureConfig, example: str) -> None:
    """``example``: the latest error."""
    if failed > measure.max_failed_share * total:
        raise ZpdError(
            f"{failed} of {total} items could not be measured, more than measure.max_failed_share = "
            f"{measure.max_failed_share:g} allows; one said: {example}; mend the cause (or raise the share) "
            "and run again: parts that are done are kept"
        )
