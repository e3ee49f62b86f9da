"""A method and a measure of a user's own, in one file: what ``select.method`` names by its import path.

IFD (Li et al. 2024, "From Quantity to Quality", arXiv 2308.12032, equation 4): NLL of the response after its
prompt over that of the response alone; what the prompt makes harder (1 and above) is left out.
"""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa

from zpd_ray.config import SelectConfig
from zpd_ray.engines import Engine, ModelRef
from zpd_ray.measures import Measure, without_prompt
from zpd_ray.selection import Candidates


class ResponseAlone(Measure):
    """NLL of each response without its prompt, nats per token."""

    columns = pa.schema([("nll_alone", pa.float32()), ("error", pa.string())])

    def measure(self, engine: Engine, items: pa.Table, stage: int) -> pa.Table:
        scores = engine.score(without_prompt(items))
        nll = pa.array(scores.nll, pa.float32(), mask=np.isnan(scores.nll))
        return pa.table([nll, pa.array(scores.error, pa.string())], schema=self.columns)


class Ifd:
    """The highest ratio below 1 first."""

    needs = ("tests.pipeline.own_method:ResponseAlone",)

    def score(self, items: Candidates, select: SelectConfig) -> np.ndarray:
        ratio = ratios(items.measured["answers"], items.measured[self.needs[0]])
        return np.where(ratio < 1, ratio, np.nan)


def ratios(answers: pa.Table, alone: pa.Table) -> np.ndarray:
    return answers["nll"].to_numpy().astype(float) / alone["nll_alone"].to_numpy()


class ShortOfARow(ResponseAlone):
    """What a mistaken measure does: a row too few."""

    def measure(self, engine: Engine, items: pa.Table, stage: int) -> pa.Table:
        return super().measure(engine, items, stage).slice(1)


class Mistaken(Ifd):
    needs = ("tests.pipeline.own_method:ShortOfARow",)


class ByProxy(Measure):
    """NLL under another model than the run's, whose directory is in the driver's environment."""

    columns = pa.schema([("nll_proxy", pa.float32())])

    def model(self, stage: ModelRef) -> ModelRef:
        return ModelRef(os.environ["ZPD_TEST_PROXY"])

    def measure(self, engine: Engine, items: pa.Table, stage: int) -> pa.Table:
        return pa.table([pa.array(engine.score(items).nll)], schema=self.columns)


class LeastForProxy(Ifd):
    needs = ("tests.pipeline.own_method:ByProxy",)

    def score(self, items: Candidates, select: SelectConfig) -> np.ndarray:
        return -items.measured[self.needs[0]]["nll_proxy"].to_numpy().astype(float)
