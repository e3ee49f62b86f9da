"""A stage's scores: each part is scored once; keys and what the fit says of its items are kept meanwhile."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zpd_ray import selection
from zpd_ray.calibration import Fit
from zpd_ray.difficulty import guess_floor
from zpd_ray.hashing import item_keys
from zpd_ray.matching import probability
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import ANSWERS, StageFiles
from zpd_ray.rundir.records import load_fit
from zpd_ray.selection import Candidates, Method
from zpd_ray.selection.keys import Keys, shuffled, sort_key
from zpd_ray.selection.top import NOTHING, Threshold

Rows = NDArray[np.int64]
RESPONSES = ("successes", "rollouts")
JUDGED = ["b", "b_sd", "p", "score"]


@dataclass(frozen=True)
class Ranked:
    """The items of a part that may be chosen for a reason: rows of the part, ascending; arrays of (n,)."""

    rows: Rows
    keys: Keys
    weight: NDArray[np.int64]  # what an item takes of the budget

    def take(self, inside: NDArray[np.bool_]) -> Ranked:
        """Those where ``inside``, bool (n,), is true."""
        return Ranked(self.rows[inside], self.keys[inside], self.weight[inside])


@dataclass(frozen=True)
class Scoring:
    """How a part is scored by one method: the same in every pass.

    directory: of the selection. unit: of the budget. replayed: whether some of it is for replay; replay: up
    to which item, once it is known.
    """

    run: Run
    fit: Fit
    method: str
    directory: str
    unit: str
    replayed: bool
    replay: Threshold = field(default=NOTHING)

    @property
    def files(self) -> StageFiles:
        """Of the stage."""
        return StageFiles(self.fit.stage)

    @property
    def scratch(self) -> str:
        """Directory of what is kept of each part, of use to one selection alone."""
        return f"{self.directory}/scored"

    def ranked(self, part: str, reason: str) -> Ranked:
        """The items of a part that may be chosen for ``reason``; those chosen for replay leave the zone."""
        table = self._kept(part, "keys")
        usable = pc.is_valid(table[reason]).to_numpy().copy()
        if reason == "zone" and self.replayed:
            replay = self.ranked(part, "replay")
            kept = self.replay.keeps(replay.keys, lambda at: self.ids(part, replay.rows[at]))
            usable[replay.rows[kept]] = False
        rows = np.flatnonzero(usable)
        keys = pc.fill_null(table[reason], 0).to_numpy()[rows]
        ones = np.ones(len(rows), dtype=np.int64)
        weight = table["weight"].to_numpy()[rows].astype(np.int64) if self.unit == "tokens" else ones
        return Ranked(rows, keys, weight)

    def chosen(self, part: str, reason: str, threshold: Threshold) -> Ranked:
        """Those up to a threshold."""
        ranked = self.ranked(part, reason)
        return ranked.take(threshold.keeps(ranked.keys, lambda at: self.ids(part, ranked.rows[at])))

    def ids(self, part: str, rows: Rows) -> list[str]:
        """Item ids of some rows of a part."""
        if len(rows) == 0:
            return []
        column = self._measured(ANSWERS, part, ["item_id"])["item_id"]
        found: list[str] = column.take(rows).to_pylist()
        return found

    def judged(self, part: str, rows: Rows) -> pa.Table:
        """What the fit and the method said of some rows of a part: float64 columns ``JUDGED``."""
        return self._kept(part, "judged").take(rows)

    def _kept(self, part: str, what: str) -> pa.Table:
        """A part's ``keys`` (by reason, null where the item may not be chosen for it) or ``judged``.

        The part is scored when nobody has yet.
        """
        name = f"{self.scratch}/{part}.{{}}.arrow"
        try:
            return pa.ipc.open_file(pa.py_buffer(self.run.store.read_bytes(name.format(what)))).read_all()
        except FileNotFoundError:
            tables = self._score(part)
        for kind, table in tables.items():
            sink = pa.BufferOutputStream()
            with pa.ipc.new_file(sink, table.schema) as file:
                file.write_table(table)
            self.run.store.write_bytes(name.format(kind), sink.getvalue())
        return tables[what]

    def _score(self, part: str) -> dict[str, pa.Table]:
        method = selection.load(self.method)
        now = self._candidates(self.fit, part, method)
        static = getattr(method, "static", False)
        seen = self._candidates(load_fit(self.run.store, 0), part, method) if static else now
        score = method.score(seen, self.run.config.select)
        judged = pa.table([now.b, now.b_sd, now.p, score], names=JUDGED)
        measured, ids = now.measured[ANSWERS], item_keys(now.measured[ANSWERS]["item_id"])
        failed = pc.is_null(measured["nll"]).to_numpy()
        away = failed | np.isnan(score)
        if not self.run.config.select.allow_trained:
            away |= self.run.trained_before(self.fit.stage, part, len(ids))
        columns = {"zone": pa.array(sort_key(score, now.item_hash), mask=away)}
        if self.replayed:
            again = shuffled(ids, self.run.config.seed, self.fit.stage, "replay")
            columns["replay"] = pa.array(again, mask=failed | ~self._mastered(measured, judged))
        if self.unit == "tokens":
            columns["weight"] = measured["n_tokens"]
        return {"keys": pa.table(columns), "judged": judged}

    def _candidates(self, fit: Fit, part: str, method: Method) -> Candidates:
        """What a fit and the measurements of its stage say of the items of a part."""
        files, theta = StageFiles(fit.stage), fit.ability.theta
        tables = {
            name: self.run.store.read_table(f"{files.measurements(name)}/{part}")
            for name in {ANSWERS: None, **dict.fromkeys(method.needs)}
        }
        measured = tables[ANSWERS]
        order = shuffled(item_keys(measured["item_id"]), self.run.config.seed, self.fit.stage, "select")
        successes, rollouts = (measured[name].to_numpy().astype(np.int64) for name in RESPONSES)
        nll = pc.fill_null(measured["nll"], 1.0).to_numpy().astype(np.float64)  # may not be chosen anyway
        guess = guess_floor(self.run.options(part, len(nll)))
        b, b_sd = fit.difficulty(nll, successes, rollouts, guess)
        p = probability(theta, b, guess)
        return Candidates(theta, order, b, b_sd, p, guess, tables, math.exp(fit.calibration.location))

    def _mastered(self, measured: pa.Table, judged: pa.Table) -> NDArray[np.bool_]:
        successes, rollouts = (measured[name].to_numpy() for name in RESPONSES)
        right = (successes == rollouts) & (rollouts > 0)
        return np.asarray((judged["p"].to_numpy() >= self.run.config.select.mastered_p) & right)

    def _measured(self, measure: str, part: str, columns: list[str] | None = None) -> pa.Table:
        return self.run.store.read_table(f"{self.files.measurements(measure)}/{part}", columns)
