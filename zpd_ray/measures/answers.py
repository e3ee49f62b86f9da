"""NLL of the reference, greedy matches, and responses graded right or wrong: what ability stands on."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from zpd_ray import graders, schema
from zpd_ray.engines.base import Engine, Scores
from zpd_ray.graders import Grader
from zpd_ray.graders.greedy_match import matches
from zpd_ray.measures.base import Measure

SAMPLES, CHARACTERS = 3, 300  # rows of a part of whose first response so many characters are kept


class Answers(Measure):
    """Asks the stage's model to score each reference, and for completions where the grader needs them."""

    columns = schema.MEASUREMENT

    def measure(self, engine: Engine, items: pa.Table, stage: int) -> pa.Table:
        """MEASUREMENT rows of ``items`` in the same order."""
        how, grader = self.config.measure, graders.load(self.config.measure.grader)
        scores = engine.score(items)
        failed = np.array([error is not None for error in scores.error], dtype=bool)
        samples: list[str | None] = [None] * items.num_rows
        if grader.needs_completion:
            completions = engine.generate(items, how.rollouts, stage)
            successes, rollouts, unparsed = _grade(grader, items, completions.texts)
            samples = _samples(completions.texts, unparsed)
            for i in np.flatnonzero(~failed & (rollouts == 0)):
                failed[i], scores.error[i] = True, f"prompt refused: {completions.error[i]}"
        else:
            successes = matches(scores.n_greedy, scores.n_tokens).astype(np.int32)
            rollouts, unparsed = np.ones_like(successes), np.zeros_like(successes)
        return _measurement(items, scores, failed, successes, rollouts, unparsed, samples)


def _samples(completions: list[list[str]], unparsed: np.ndarray) -> list[str | None]:
    """The start of a response for a few rows: the first ones, and the first without an answer in it."""
    rows = set(range(SAMPLES)) | set(np.flatnonzero(unparsed)[:1].tolist())
    return [texts[0][:CHARACTERS] if i in rows and texts else None for i, texts in enumerate(completions)]


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
    samples: list[str | None],
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
            pa.array(samples, pa.string(), mask=failed),
            pa.array(scores.error, pa.string()),
        ],
        schema=schema.MEASUREMENT,
    )
