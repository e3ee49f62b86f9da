"""A stage's scores: each part is scored once, and its sort keys kept in ``stages/NN/scored`` meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zpd_ray.calibration import Fit
from zpd_ray.config import Config
from zpd_ray.hashing import item_keys
from zpd_ray.matching import probability
from zpd_ray.pipeline.fit.ability import option_counts, trained_before
from zpd_ray.rundir.store import Store
from zpd_ray.selection import METHODS, Candidates
from zpd_ray.selection.keys import Keys, shuffled, sort_key
from zpd_ray.selection.top import NOTHING, Threshold

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
ANSWERS = ["nll", "successes", "rollouts"]


@dataclass(frozen=True)
class Judged:
    """What the fit says of items; arrays of shape (n,), each item's numbers its own whatever the others."""

    b: Floats
    b_sd: Floats
    p: Floats
    score: Floats


@dataclass(frozen=True)
class Ranked:
    """The items of a part that may be chosen for a reason: rows of the part, ascending; arrays of (n,)."""

    rows: Rows
    keys: Keys
    weight: NDArray[np.int64]  # what an item takes of the budget

    def take(self, inside: NDArray[np.bool_]) -> Ranked:
        """Some of them."""
        return Ranked(self.rows[inside], self.keys[inside], self.weight[inside])


@dataclass(frozen=True)
class Scoring:
    """How a part is scored: the same in every pass."""

    config: Config
    store: Store
    fit: Fit
    unit: str
    replayed: bool  # whether some of the budget is for replay
    replay: Threshold = field(default=NOTHING)  # once it is known

    @property
    def directory(self) -> str:
        """Of the stage."""
        return f"stages/{self.fit.stage:02d}"

    @property
    def scratch(self) -> str:
        """Directory of the kept keys, of use to one selection alone."""
        return f"{self.directory}/scored"

    def ranked(self, name: str, reason: str) -> Ranked:
        """The items of a part that may be chosen for ``reason``; those chosen for replay leave the zone."""
        table = self._kept(name)
        usable = pc.is_valid(table[reason]).to_numpy().copy()
        if reason == "zone" and self.replayed:
            replay = self.ranked(name, "replay")
            kept = self.replay.keeps(replay.keys, lambda at: self.ids(name, replay.rows[at]))
            usable[replay.rows[kept]] = False
        rows = np.flatnonzero(usable)
        keys = pc.fill_null(table[reason], 0).to_numpy()[rows]
        ones = np.ones(len(rows), dtype=np.int64)
        weight = table["weight"].to_numpy()[rows].astype(np.int64) if self.unit == "tokens" else ones
        return Ranked(rows, keys, weight)

    def chosen(self, name: str, reason: str, threshold: Threshold) -> Ranked:
        """Those up to a threshold."""
        ranked = self.ranked(name, reason)
        return ranked.take(threshold.keeps(ranked.keys, lambda at: self.ids(name, ranked.rows[at])))

    def ids(self, name: str, rows: Rows) -> list[str]:
        """Item ids of some rows of a part."""
        if len(rows) == 0:
            return []
        column = self.store.read_table(f"{self.directory}/measurements/{name}", ["item_id"])["item_id"]
        found: list[str] = column.take(rows).to_pylist()
        return found

    def judge(self, name: str, rows: Rows, item_ids: pa.ChunkedArray) -> Judged:
        """Scores of some rows of a part."""
        measured = self.store.read_table(f"{self.directory}/measurements/{name}", ANSWERS)
        guess = self._guess(name, measured.num_rows)[rows]
        return self._judge(measured.take(rows), guess, self._order(item_keys(item_ids), "select"))

    def _kept(self, name: str) -> pa.Table:
        """Keys by reason, null where the item may not be chosen for it; scored when nobody has yet."""
        kept = f"{self.scratch}/{name}.arrow"
        try:
            return pa.ipc.open_file(pa.py_buffer(self.store.read_bytes(kept))).read_all()
        except FileNotFoundError:
            table = self._score(name)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as file:
            file.write_table(table)
        self.store.write_bytes(kept, sink.getvalue())
        return table

    def _score(self, name: str) -> pa.Table:
        weight = ["n_tokens"] if self.unit == "tokens" else []
        measured = self.store.read_table(
            f"{self.directory}/measurements/{name}", [*ANSWERS, "item_id", *weight]
        )
        ids = item_keys(measured["item_id"])
        order = self._order(ids, "select")
        judged = self._judge(measured, self._guess(name, len(ids)), order)
        method = METHODS[self.config.select.method]
        failed = pc.is_null(measured["nll"]).to_numpy()
        away = failed.copy()
        if not self.config.select.allow_trained:
            away |= trained_before(self.store, self.fit.stage, name, len(ids))
        columns = {"zone": pa.array(sort_key(judged.score, method.upper, order), mask=away)}
        if self.replayed:
            unfit = failed | ~self._mastered(measured, judged)
            columns["replay"] = pa.array(self._order(ids, "replay"), mask=unfit)
        if weight:
            columns["weight"] = measured["n_tokens"]
        return pa.table(columns)

    def _mastered(self, measured: pa.Table, judged: Judged) -> NDArray[np.bool_]:
        successes, rollouts = (measured[name].to_numpy() for name in ANSWERS[1:])
        right = (successes == rollouts) & (rollouts > 0)
        return np.asarray((judged.p >= self.config.select.mastered_p) & right)

    def _judge(self, measured: pa.Table, guess: Floats, order: Keys) -> Judged:
        successes, rollouts = (measured[name].to_numpy().astype(np.int64) for name in ANSWERS[1:])
        nll = pc.fill_null(measured["nll"], 1.0).to_numpy().astype(np.float64)  # may not be chosen anyway
        b, b_sd = self.fit.difficulty(nll, successes, rollouts, guess)
        method, theta = METHODS[self.config.select.method], self.fit.theta
        score = method.score(Candidates(theta, order, b, b_sd, guess), self.config.select)
        return Judged(b, b_sd, probability(theta, b, guess), score)

    def _guess(self, name: str, n: int) -> Floats:
        options = option_counts(self.config, self.store, name, n).astype(np.float64)
        return np.divide(1.0, options, out=np.zeros(n), where=options > 0)

    def _order(self, ids: Keys, purpose: str) -> Keys:
        return shuffled(ids, self.config.seed, self.fit.stage, purpose)
