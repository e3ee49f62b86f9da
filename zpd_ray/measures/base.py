"""What a measure is: columns per item, what it asks of an engine, and of which model."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa

from zpd_ray.config import Config
from zpd_ray.engines.base import Engine, ModelRef, Scores
from zpd_ray.errors import ZpdError


class Measure:
    """One thing that is measured of each item, by every scoring actor, a part of the pool at a time.

    columns: arrow schema of what it writes, a row per item of the part and in the same order. A column
    ``error`` (string, null where the row was measured) is counted: a run stops when too many rows have one.
    last_turn_only: it means nothing beside NLLs of all turns, and is refused with train.turns = "all".
    needs_reference: it means nothing of a prompt alone, and is refused with pool.reference = "prompt".
    """

    columns: ClassVar[pa.Schema]
    last_turn_only = False
    needs_reference = False
    passes = 1  # how often the engine computes each item, for the progress bar
    beats = 0  # signs of life

    def __init__(self, config: Config) -> None:
        """The run's config; nothing is loaded yet."""
        self.config = config

    def beat(self) -> None:
        """A sign of life, for a measure that computes for long without asking the engine."""
        self.beats += 1

    def model(self, stage: ModelRef) -> ModelRef:
        """The model that is asked: the stage's own, unless a measure says otherwise.

        One with other weights than the run's base model (a proxy, a judge) makes the scoring actors start
        anew with it; the run's base model without an adapter is ``ModelRef(self.config.model.path)``.
        """
        return stage

    def measure(self, engine: Engine, items: pa.Table, stage: int) -> pa.Table:
        """Rows of ``columns`` for ``items`` (``schema.ITEM``); the same items give the same bytes."""
        raise ZpdError(f"the measure {type(self).__name__} has no method measure(engine, items, stage)")


def without_prompt(items: pa.Table) -> pa.Table:
    """The items with no messages: ``engine.score`` then gives the NLL of the responses by themselves.

    A measure that compares with it has ``last_turn_only``.
    """
    column = items.schema.get_field_index("messages")
    none = pa.array([[]] * items.num_rows, items.schema.field(column).type)
    return items.set_column(column, "messages", none)


def nll_of(scores: Scores) -> pa.Array:
    """The NLLs as a column: float32, nats per token, null where a row could not be measured."""
    return pa.array(scores.nll, pa.float32(), mask=np.isnan(scores.nll))


def named_model(path: str | None, key: str) -> ModelRef:
    """The model that the config's ``key`` names; ZpdError when it names none."""
    if path is None:
        raise ZpdError(
            f"{key} is missing, and a selection method in use measures with the model that it names; give "
            f'its directory or hub id, as in {key} = "models/small", or take another select.method'
        )
    return ModelRef(path)
