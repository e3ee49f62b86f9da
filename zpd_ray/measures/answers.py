"""NLL of the reference, greedy matches, and responses graded right or wrong: what ability stands on."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from zpd_ray import graders, schema
from zpd_ray.config import Config
from zpd_ray.engines.base import Engine, Scores
from zpd_ray.errors import ZpdError
from zpd_ray.graders import CompletionGrader, ScoreGrader, Verdict
from zpd_ray.graders.apart import Apart
from zpd_ray.hashing import item_keys, streams, uniforms
from zpd_ray.measures.base import Measure
from zpd_ray.measures.own import Own, own_answers

GRADED = 103  # the stream of random numbers that turns shares into right and wrong
SAMPLES, CHARACTERS = 3, 300  # rows of a part of whose first response so many characters are kept
ANSWER_CHARACTERS = 80  # of an answer that is kept


class Answers(Measure):
    """Asks the stage's model to score each reference, and for completions where the grader needs them."""

    columns = schema.MEASUREMENT

    def __init__(self, config: Config) -> None:
        """A grader of the user's is called in a process of its own, which starts with the first part."""
        super().__init__(config)
        name = config.measure.grader
        self._grader = graders.load(name)
        self.passes = 2 if self._grader.needs_completion else 1
        self._apart: Apart | None = None
        if ":" in name and self._grader.needs_completion:
            self._apart = Apart(name, config.measure.patience, self.beat)

    def measure(self, engine: Engine, items: pa.Table, stage: int) -> pa.Table:
        """MEASUREMENT rows of ``items`` in the same order."""
        scores = engine.score(items)
        failed = np.array([error is not None for error in scores.error], dtype=bool)
        samples: list[str | None] = [None] * items.num_rows
        others: list[tuple[str | None, int]] = [(None, 0)] * items.num_rows
        own = Own.none(items.num_rows)
        if isinstance(self._grader, ScoreGrader):
            share = _shares(self._grader, scores, failed)
            responses = self.config.measure.rollouts if self._grader.samples else 1
            counts = self._drawn(np.repeat(share[:, None], responses, axis=1), items, stage)
            counts |= {name: np.full(len(share), n) for name, n in (("rollouts", responses), ("unparsed", 0))}
        else:
            completions = engine.generate(items, self.config.measure.rollouts, stage)
            verdicts = self._verdicts(completions.texts, items)
            counts = self._counts(verdicts, items, stage)
            others = self._others(completions.texts, verdicts, items)
            samples = _samples(completions.texts, counts["unparsed"])
            if self.config.train.target == "own":
                own = own_answers(self.config, items, completions.texts, verdicts, stage)
            for i in np.flatnonzero(~failed & (counts["rollouts"] == 0)):
                failed[i], scores.error[i] = True, f"prompt refused: {completions.error[i]}"
        counts["n_other"] = np.array([n for _, n in others], dtype=np.int64)
        texts = {"other_answer": [answer for answer, _ in others], "completion": samples, "own": own.text}
        return _measurement(items, scores, failed, counts, texts, own.tokens)

    def _verdicts(self, completions: list[list[str]], items: pa.Table) -> list[list[Verdict]]:
        if self._apart is not None:
            return self._apart.verdicts(completions, items.select(schema.ITEM.names).to_pylist())
        asked = items.select(["answer", "choices"]).to_pylist()
        return [
            [graders.grade_item(self._grader, text, item) for text in texts]
            for texts, item in zip(completions, asked, strict=True)
        ]

    def _others(
        self, completions: list[list[str]], verdicts: list[list[Verdict]], items: pa.Table
    ) -> list[tuple[str | None, int]]:
        """Of each item the wrong answer that most responses gave, and how many did.

        A grader of the user's, which has a process of its own, is not asked for answers.
        """
        grader = self._grader
        if self._apart is not None or not isinstance(grader, CompletionGrader):
            return [(None, 0)] * len(completions)
        asked = zip(completions, verdicts, items["choices"].to_pylist(), strict=True)
        return [_other(grader, *each) for each in asked]

    def _counts(self, verdicts: list[list[Verdict]], items: pa.Table, stage: int) -> dict[str, Any]:
        """successes, credit, rollouts, unparsed: (n,) each, over an item's responses."""
        most = max((len(row) for row in verdicts), default=0)
        share = np.array([[v.right for v in row] + [0.0] * (most - len(row)) for row in verdicts])
        return self._drawn(share.reshape(len(verdicts), most), items, stage) | {
            "rollouts": np.array([len(row) for row in verdicts]),
            "unparsed": np.array([sum(not v.parsed for v in row) for row in verdicts]),
        }

    def _drawn(self, share: np.ndarray, items: pa.Table, stage: int) -> dict[str, Any]:
        """successes and credit, (n,) each, of the shares of responses that are right, (n, rollouts).

        Rasch's model knows right and wrong. A share is right with that probability, by a draw that belongs to
        (seed, stage, item, rollout): the expected number of right responses is the sum of the shares.
        """
        keys = item_keys(items["item_id"])
        draws = [uniforms(streams(keys, self.config.seed, stage, GRADED, r)) for r in range(share.shape[1])]
        right = share > np.stack(draws, axis=1) if draws else share > 0
        return {"successes": right.sum(axis=1), "credit": share.sum(axis=1)}


def _other(
    grader: CompletionGrader, texts: list[str], verdicts: list[Verdict], choices: list[str] | None
) -> tuple[str | None, int]:
    """Of equally many the first in the order of texts; (None, 0) where no wrong answer was read."""
    wrong = [
        text for text, verdict in zip(texts, verdicts, strict=True) if verdict.parsed and not verdict.right
    ]
    told = (grader.answer_of(text, choices) for text in wrong)
    given = Counter(answer[:ANSWER_CHARACTERS] for answer in told if answer is not None)
    return min(given.items(), key=lambda pair: (-pair[1], pair[0]), default=(None, 0))


def _shares(grader: ScoreGrader, scores: Scores, failed: np.ndarray) -> np.ndarray:
    """What the grader tells, float64 (n,), 0 of items that failed. Raises ZpdError for what is no share."""
    told = np.asarray(grader.from_scores(scores), dtype=np.float64)
    if told.shape == failed.shape:
        told = np.where(failed, 0.0, told)
        if ((told >= 0) & (told <= 1)).all():
            return told
    raise ZpdError(
        f"the grader {type(grader).__name__} gave {np.array2string(told, threshold=10)} for {len(failed)} "
        "items; expected a share from 0 to 1 for each"
    )


def _samples(completions: list[list[str]], unparsed: np.ndarray) -> list[str | None]:
    """The start of a response for a few rows: the first ones, and the first without an answer in it."""
    rows = set(range(SAMPLES)) | set(np.flatnonzero(unparsed)[:1].tolist())
    return [texts[0][:CHARACTERS] if i in rows and texts else None for i, texts in enumerate(completions)]


def _measurement(
    items: pa.Table,
    scores: Scores,
    failed: np.ndarray,
    counts: dict[str, np.ndarray],
    texts: dict[str, list[str | None]],
    own_tokens: list[int | None],
) -> pa.Table:
    keep = ~failed  # a row that failed has no response either: it must not count as a wrong answer
    columns = {
        "item_id": items["item_id"].combine_chunks(),
        "nll": pa.array(scores.nll, pa.float32(), mask=failed),
        "n_tokens": pa.array(scores.n_tokens * keep, pa.int32()),
        "n_greedy": pa.array(scores.n_greedy * keep, pa.int32(), mask=scores.n_greedy < 0),
        "own_tokens": pa.array(own_tokens, pa.int32(), mask=failed),
        "error": pa.array(scores.error, pa.string()),
    }
    columns |= {name: pa.array(values, pa.string(), mask=failed) for name, values in texts.items()}
    columns |= {
        name: pa.array(values * keep, schema.MEASUREMENT.field(name).type) for name, values in counts.items()
    }
    return pa.table([columns[name] for name in schema.MEASUREMENT.names], schema=schema.MEASUREMENT)
