"""A measure: how many of the words of a reference differ."""

import pyarrow as pa

from zpd_ray.engines import Engine
from zpd_ray.measures import Measure


class Distinct(Measure):
    """Different words over all words (type-token ratio), 0 to 1; null where there is no word."""

    columns = pa.schema([("distinct", pa.float32()), ("error", pa.string())])

    def measure(self, engine: Engine, items: pa.Table, stage: int) -> pa.Table:
        """A row per item, in their order; ``engine.score(items)`` would give NLLs."""
        words = [text.lower().split() for text in items["response"].to_pylist()]
        ratios = [len(set(each)) / len(each) if each else None for each in words]
        errors = [None if each else "the response has no words" for each in words]
        return pa.table([pa.array(ratios, pa.float32()), pa.array(errors, pa.string())], schema=self.columns)
