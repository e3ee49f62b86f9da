"""NLL of a response under a reference model: what of it cannot be learnt from data like this."""

from __future__ import annotations

import pyarrow as pa

from zpd_ray.engines.base import Engine, ModelRef
from zpd_ray.measures.base import Measure, named_model, nll_of


class Reference(Measure):
    """Asks the model that ``select.reference_model`` names, in its own tokens."""

    needs_reference = True
    columns = pa.schema(
        [
            ("nll_reference", pa.float32()),  # by the reference model, nats per token
            ("n_tokens_reference", pa.int32()),  # response tokens, in the reference model's own
            ("error", pa.string()),  # null when the row was measured
        ]
    )

    def model(self, stage: ModelRef) -> ModelRef:
        """The reference model, whatever the stage. Raises ZpdError when the config names none."""
        return named_model(self.config.select.reference_model, "select.reference_model")

    def measure(self, engine: Engine, items: pa.Table, stage: int) -> pa.Table:
        """NLL in nats per token of the reference, null with the reason in ``error``, and how many tokens."""
        scores = engine.score(items)
        columns = [nll_of(scores), pa.array(scores.n_tokens, pa.int32()), pa.array(scores.error, pa.string())]
        return pa.table(columns, schema=self.columns)
