"""Measures: what can be measured of an item, and the columns that come of it. One small file each."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from zpd_ray.config import Config
from zpd_ray.engines.base import Engine
from zpd_ray.errors import ZpdError
from zpd_ray.measures.base import Measure, nll_of, without_prompt
from zpd_ray.registry import Registry

__all__ = ["MEASURES", "Measure", "load", "nll_of", "without_prompt"]

MEASURES = Registry(
    "measure",
    "a subclass of zpd_ray.measures.Measure",
    {
        "answers": "zpd_ray.measures.answers:Answers",
        "alone": "zpd_ray.measures.alone:Alone",
        "proxy": "zpd_ray.measures.proxy:Proxy",
        "in_context": "zpd_ray.measures.in_context:InContext",
        "judge": "zpd_ray.measures.judge:Judge",
        "reference": "zpd_ray.measures.reference:Reference",
    },
)
OF_PROMPTS = "take zpd, random, difficulty_window, target_difficulty, or a select.method of your own"
UNPARSED_TOLD = 0.2  # share of responses without an answer from which a reader is told
COUNTED = {"tokens": "n_tokens", "responses": "rollouts", "right": "successes", "unparsed": "unparsed"}


def load(name: str, config: Config) -> Measure:
    """The measure of a name, or of the class that ``package.module:Class`` names, for a run.

    Raises ZpdError for an unknown name (with the nearest), something that is no measure, or one that does not
    go with ``train.turns`` or ``pool.reference``.
    """
    found = MEASURES.load(name)
    if not (isinstance(found, type) and issubclass(found, Measure) and hasattr(found, "columns")):
        raise ZpdError(f"the measure {name!r} is {found!r}; expected {MEASURES.expected} with columns")
    if config.train.turns == "all" and found.last_turn_only:
        raise ZpdError(
            f"the measure {name!r}, which the method in use needs, knows the last turn alone, and "
            "train.turns = 'all' measures every answer of a conversation; take train.turns = 'last', or "
            "another select.method"
        )
    if config.prompts_alone and found.needs_reference:
        raise ZpdError(
            f"the measure {name!r}, which the method in use needs, reads references, and with pool.reference "
            f"= 'prompt' there are none; {OF_PROMPTS}"
        )
    return found(config)


def rows_of(name: str, measure: Measure, engine: Engine, items: pa.Table, stage: int) -> pa.Table:
    """Measure ``items``; raises ZpdError when what comes is not a row of the declared columns per item."""
    table = measure.measure(engine, items, stage)
    if table.num_rows != items.num_rows or not table.schema.equals(measure.columns):
        raise ZpdError(
            f"the measure {name} made {table.num_rows} rows of {table.schema.names} from {items.num_rows} "
            f"items; expected a row per item with the columns it declares, {measure.columns.names}, in their "
            "types"
        )
    return table


def count(table: pa.Table) -> dict[str, Any]:
    """Totals of a measured part, over the columns that it has, with an error and a response for example.

    items, failed (rows with an error), and tokens, responses, right, unparsed where they were counted.
    example: an error text; unparsed_example: a response in which the grader found no answer; "" for none.
    """
    errors = table["error"].drop_null() if "error" in table.column_names else []
    sums = {
        total: int(table[column].to_numpy().sum())
        for total, column in COUNTED.items()
        if column in table.column_names
    }
    told = {"example": errors[0].as_py() if len(errors) else "", "unparsed_example": _unparsed(table)}
    return {"items": table.num_rows, "failed": len(errors), **sums, **told}


def _unparsed(table: pa.Table) -> str:
    if not {"unparsed", "completion"} <= set(table.column_names):
        return ""
    rows = table.filter(pc.and_(pc.greater(table["unparsed"], 0), pc.is_valid(table["completion"])))
    return str(rows["completion"][0]) if rows.num_rows else ""
