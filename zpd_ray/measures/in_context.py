"""What an item is worth as a demonstration: how well the model answers others after it, and looks at it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zpd_ray import schema
from zpd_ray.engines import ENGINES
from zpd_ray.engines.base import Engine, ModelRef
from zpd_ray.errors import ZpdError
from zpd_ray.graders import ScoreGrader
from zpd_ray.hashing import item_keys, streams
from zpd_ray.measures.answers import Answers, _shares

PLACES = 105  # the stream of random numbers that puts items in an order
Rows = NDArray[np.int64]


class InContext(Answers):
    """Demonstrations of one part of the pool, ``select.in_context.demonstrations`` at a time, by their order.

    Items are put in an order by a seeded hash. Each so many in a row are the demonstrations of a prompt, and
    those that follow are asked after them, each in a prompt of its own. So an item's number depends on the
    others of its part, and on nothing else.
    """

    last_turn_only = True  # answers of demonstrations are no turns of the item's
    needs_reference = True
    columns = pa.schema(
        [
            # mean over the questions of: share right after the demonstrations, times the share of attention
            # to them that this one has
            ("utility", pa.float32()),
            ("error", pa.string()),  # null when the row was measured
        ]
    )

    def __init__(self, config: Any) -> None:
        """As ``Answers``, by the same grader."""
        super().__init__(config)
        self.passes = 1

    def model(self, stage: ModelRef) -> ModelRef:
        """The stage's. Raises ZpdError for an engine that does not tell attention."""
        if not hasattr(ENGINES.load(self.config.engine.name), "attention"):
            raise ZpdError(
                f"the method data_whisperer needs the model's attention, which engine.name = "
                f"{self.config.engine.name!r} does not tell; take 'transformers', or another select.method"
            )
        return stage

    def measure(self, engine: Engine, items: pa.Table, stage: int) -> pa.Table:
        """Utilities, null with the reason in ``error`` where no question could be asked after an item."""
        how, n = self.config.select.in_context, items.num_rows
        order = np.argsort(
            streams(item_keys(items["item_id"]), self.config.seed, stage, PLACES), kind="stable"
        )
        shown, asked = contexts(n, how.demonstrations, how.queries)
        if shown.shape[1] == 0:
            alone: list[str | None] = ["it is alone in its part: nothing to ask after it"]
            return self._table(np.full(n, np.nan), alone * n)
        shown, asked = order[shown], order[asked]
        prompts, texts = prompts_of(items, np.repeat(shown, asked.shape[1], axis=0), asked.ravel())
        right, wrong = self._right(engine, prompts, stage)
        weight, unseen = engine.attention(prompts, texts, how.layer)  # type: ignore[attr-defined]
        error = [one or other for one, other in zip(wrong, unseen, strict=True)]
        value = right[:, None] * weight / weight.sum(axis=1, keepdims=True)
        value[[why is not None for why in error]] = np.nan
        return self._table(*_means(value.reshape(*asked.shape, -1), shown, error, n))

    def _right(
        self, engine: Engine, prompts: pa.Table, stage: int
    ) -> tuple[NDArray[np.float64], list[str | None]]:
        """The share right of each prompt's question, by the run's grader, and why it could not be asked."""
        if isinstance(self._grader, ScoreGrader):
            scores = engine.score(prompts)
            failed = np.array([why is not None for why in scores.error], dtype=bool)
            return _shares(self._grader, scores, failed), scores.error
        answers = engine.generate(prompts, 1, stage)
        verdicts = self._verdicts(answers.texts, prompts)
        return np.array(
            [sum(each.right for each in row) for row in verdicts], dtype=np.float64
        ), answers.error

    def _table(self, utility: NDArray[np.float64], error: list[str | None]) -> pa.Table:
        values = pa.array(utility, pa.float32(), mask=np.isnan(utility))
        return pa.table([values, pa.array(error, pa.string())], schema=self.columns)


def contexts(n: int, demonstrations: int, queries: int) -> tuple[Rows, Rows]:
    """Places in the order of n items: demonstrations (c, k) and questions (c, q) of each of c contexts.

    Each item is a demonstration; where n is no multiple of k, the last context is filled up from the first
    items. Questions are the items that follow, from the first again after the last. Where items are few k is
    n - 1 at most, and q what is left.
    """
    k = max(0, min(demonstrations, n - 1))
    if k == 0:
        return np.zeros((0, 0), dtype=np.int64), np.zeros((0, 0), dtype=np.int64)
    first = np.arange(0, n, k)[:, None]
    q = min(queries, n - k)
    return (first + np.arange(k)) % n, (first + k + np.arange(q)) % n


def prompts_of(items: pa.Table, shown: Rows, asked: Rows) -> tuple[pa.Table, list[list[list[str]]]]:
    """The items ``asked``, (m,), each with the demonstrations ``shown``, (m, k), before its own turns.

    And the texts of the turns of each. System turns of demonstrations are left out; those of the question
    come first.
    """
    turns, said = items["messages"].to_pylist(), items.select(["response", "response_more"]).to_pylist()
    example = [
        [
            *(turn for turn in own if turn["role"] != "system"),
            {"role": "assistant", "content": last["response"], "more": last["response_more"]},
        ]
        for own, last in zip(turns, said, strict=True)
    ]
    messages = []
    for before, at in zip(shown.tolist(), asked.tolist(), strict=True):
        system = [turn for turn in turns[at] if turn["role"] == "system"]
        own = [turn for turn in turns[at] if turn["role"] != "system"]
        messages.append([*system, *(turn for i in before for turn in example[i]), *own])
    prompts = items.take(asked)
    column = prompts.schema.get_field_index("messages")
    prompts = prompts.set_column(column, "messages", pa.array(messages, schema.ITEM.field("messages").type))
    texts = [[turn["content"] or "" for turn in each] for each in example]
    return prompts, [[texts[i] for i in before] for before in shown.tolist()]


def _means(
    value: NDArray[np.float64], shown: Rows, error: list[str | None], n: int
) -> tuple[NDArray[np.float64], list[str | None]]:
    """Of each item, over the questions that could be asked after it in the context that it begins in.

    value: (c, q, k); error: (c * q,). An item that fills up the last context has been in another one before.
    """
    utility, why = np.full(n, np.nan), list[str | None]([None] * n)
    for context in range(len(shown) - 1, -1, -1):
        asked = ~np.isnan(value[context, :, 0])
        mean = value[context, asked].mean(axis=0) if asked.any() else np.nan
        utility[shown[context]] = mean
        told = next((each for each in error[context * len(asked) : (context + 1) * len(asked)] if each), None)
        for item in shown[context]:
            why[item] = None if asked.any() else told
    return utility, why
