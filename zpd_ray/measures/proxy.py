"""NLL of a response with and without its prompt, by a small model that stands in for the run's own."""

from __future__ import annotations

import pyarrow as pa

from zpd_ray.engines.base import Engine, ModelRef
from zpd_ray.measures.base import Measure, named_model, nll_of, without_prompt


class Proxy(Measure):
    """Asks the model that ``select.proxy`` names, in its own tokens and with its own chat template."""

    passes = 2
    last_turn_only = True
    needs_reference = True
    columns = pa.schema(
        [
            ("nll_proxy", pa.float32()),  # of the response after its prompt, by the proxy, nats per token
            ("nll_proxy_alone", pa.float32()),  # of the response without its prompt, by the proxy
            ("error", pa.string()),  # null when the row was measured
        ]
    )

    def model(self, stage: ModelRef) -> ModelRef:
        """The proxy, whatever the stage. Raises ZpdError when the config names none."""
        return named_model(self.config.select.proxy, "select.proxy")

    def measure(self, engine: Engine, items: pa.Table, stage: int) -> pa.Table:
        """NLLs in nats per token of the proxy, null with the reason in ``error``."""
        scores, alone = engine.score(items), engine.score(without_prompt(items))
        error = [one or other for one, other in zip(scores.error, alone.error, strict=True)]
        columns = [nll_of(scores), nll_of(alone), pa.array(error, pa.string())]
        return pa.table(columns, schema=self.columns)
