"""NLL of a response without its prompt: what IFD compares with."""

from __future__ import annotations

import pyarrow as pa

from zpd_ray.engines.base import Engine
from zpd_ray.measures.base import Measure, nll_of, without_prompt


class Alone(Measure):
    """Asks the stage's model; the end of the turn counts as in ``answers``.

    The first token is predicted by the begin-of-text token, or end-of-text where there is no other
    (``Engine.score``). The authors of IFD put "### Response:" there instead.
    """

    last_turn_only = True
    needs_reference = True
    columns = pa.schema(
        [
            ("nll_alone", pa.float32()),  # of the response without its prompt, nats per token
            ("error", pa.string()),  # null when the row was measured
        ]
    )

    def measure(self, engine: Engine, items: pa.Table, stage: int) -> pa.Table:
        """NLL in nats per token, null with the reason in ``error``."""
        scores = engine.score(without_prompt(items))
        return pa.table([nll_of(scores), pa.array(scores.error, pa.string())], schema=self.columns)
