"""One part: items in, MEASUREMENT rows out. Runs inside a scoring actor; needs no Ray."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from zpd_ray import schema
from zpd_ray.config import MeasureConfig
from zpd_ray.engines import Engine, Scores
from zpd_ray.graders import Grader
from zpd_ray.graders.greedy_match import matches


def measure_items(
    engine: Engine, grader: Grader, items: pa.Table, measure: MeasureConfig, stage: int
) -> pa.Table:
    """MEASUREMENT rows of ``items`` in the same order. The same items give the same bytes."""
    scores = engine.score(items)
    failed = np.array([error is not None for error in scores.error], dtype=bool)
    if grader.needs_completion:
        completions = engine.generate(items, measure.rollouts, stage)
        successes, rollouts, unparsed = _grade(grader, items, completions.texts)
        for i in np.flatnonzero(~failed & (rollouts == 0)):
            failed[i], scores.error[i] = True, f"prompt refused: {completions.error[i]}"
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
            pa.array(scores.n_tokens * keep, pa.int32()),
            pa.array(scores.n_greedy * keep, pa.int32(), mask=scores.n_greedy < 0),
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
