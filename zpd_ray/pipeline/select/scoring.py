"""A stage's scores: each part is scored once; keys and what the fit says of its items are kept meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zpd_ray.calibration import Fit
from zpd_ray.hashing import item_keys
from zpd_ray.rundir import Run
from zpd_ray.rundir.groups import group_numbers
from zpd_ray.rundir.judging import (
    Known,
    drifted_part,
    judge,
    last_measured,
    mastered,
    read_measured,
    scored_columns,
    selection_order,
)
from zpd_ray.rundir.layout import ANSWERS
from zpd_ray.selection import looks_for_zone
from zpd_ray.selection.keys import Keys, shuffled, sort_key
from zpd_ray.selection.quotas import keeps
from zpd_ray.selection.top import NOTHING, Threshold

Rows = NDArray[np.int64]
Among = Literal["known", "measured", "not measured"]


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
    to which item, once it is known. among: all items of which something is known, or those alone that the
    fit's stage has measured, or has not; within: of a part that has drifted alone, its place among them.
    groups: names of those with quotas, the items of all others being one more; none where there are no
    quotas. quotas: up to which item each group may be chosen for the zone, once that is known. thinned:
    whether it is known which items are left out of the zone as near duplicates.
    """

    run: Run
    fit: Fit
    method: str
    directory: str
    unit: str
    replayed: bool
    replay: Threshold = field(default=NOTHING)
    among: Among = "known"
    within: int | None = None
    groups: tuple[str, ...] = ()
    quotas: tuple[Threshold, ...] | None = None
    thinned: bool = False

    @property
    def scratch(self) -> str:
        """Directory of what is kept of each part, of use to one selection alone."""
        return f"{self.directory}/scored"

    @property
    def near(self) -> str:
        """Directory of the rows that are left out as near duplicates."""
        return f"{self.directory}/near"

    def ranked(self, part: str, reason: str) -> Ranked:
        """The items of a part that may be chosen for ``reason``.

        Those chosen for replay leave the zone, and so do those for which a quota has no room.
        """
        ranked = self._ranked(part, reason)
        if reason != "zone" or self.quotas is None:
            return ranked
        group = self.groups_of(part, ranked.rows)
        return ranked.take(keeps(self.quotas, group, ranked.keys, lambda at: self.ids(part, ranked.rows[at])))

    def _ranked(self, part: str, reason: str) -> Ranked:
        table = self._kept(part, "keys")
        usable = pc.is_valid(table[reason]).to_numpy().copy()
        if reason == "zone" and self.replayed:
            replay = self.ranked(part, "replay")
            kept = self.replay.keeps(replay.keys, lambda at: self.ids(part, replay.rows[at]))
            usable[replay.rows[kept]] = False
        if reason == "zone" and self.thinned:
            usable[self.near_rows(part)] = False
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
        column = read_measured(self.run, self.fit.stage, ANSWERS, part, ["item_id"])["item_id"]
        found: list[str] = column.take(rows).to_pylist()
        return found

    def groups_of(self, part: str, rows: Rows) -> NDArray[np.int64]:
        """The number of the group whose quota some rows of a part belong to: (n,)."""
        return self._kept(part, "keys")["group"].to_numpy()[rows]

    def judged(self, part: str, rows: Rows) -> pa.Table:
        """What the fit and the method said of some rows of a part: float64 columns ``JUDGED``."""
        return self._kept(part, "judged").take(rows)

    def passed_over(self, part: str, by_score: Threshold) -> int:
        """How many items of a part are up to a threshold, and no quota has room for them."""
        if self.quotas is None:
            return 0
        ranked, bought = self._ranked(part, "zone"), self.ranked(part, "zone")
        best = ranked.take(by_score.keeps(ranked.keys, lambda at: self.ids(part, ranked.rows[at])))
        return len(np.setdiff1d(best.rows, bought.rows))

    def near_rows(self, part: str) -> Rows:
        """Rows of a part that are left out as near duplicates; ascending."""
        name = f"{self.near}/{part}"
        if not self.run.store.exists(name):
            return np.zeros(0, dtype=np.int64)
        rows: Rows = self.run.store.read_table(name)["row"].to_numpy()
        return rows

    def repeated(self, part: str, by_score: Threshold) -> int:
        """How many items of a part are up to a threshold, and left out as near duplicates."""
        if not self.thinned:
            return 0
        every = replace(self, thinned=False, quotas=None).chosen(part, "zone", by_score)
        return len(np.intersect1d(every.rows, self.near_rows(part)))

    def left_out(self, part: str) -> int:
        """How many items of a part were measured and got no score."""
        return int(pc.sum(self._kept(part, "keys")["left_out"]).as_py() or 0)

    def unanswered(self, part: str) -> int:
        """How many items of a part were measured and have nothing to train on."""
        return int(pc.sum(self._kept(part, "keys")["unanswered"]).as_py() or 0)

    @property
    def looks_for_zone(self) -> bool:
        """Whether the method does."""
        return looks_for_zone(self.method)

    def _kept(self, part: str, what: str) -> pa.Table:
        """A part's ``keys`` (by reason, null where the item may not be chosen for it; and what is left out)
        or ``judged``.

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
        known = last_measured(self.run, self.fit.stage, ANSWERS, part, scored_columns(self.run))
        measured = known.answers
        ids = item_keys(measured["item_id"])
        order = selection_order(self.run, self.fit.stage, ids)
        judged = judge(self.run, self.fit, self.method, part, known, order)
        score = judged["score"].to_numpy()
        failed = pc.is_null(measured["nll"]).to_numpy()
        others = self._others(part, known)
        unanswered = self._unanswered(measured)
        away = others | failed | np.isnan(score) | unanswered
        if not self.run.config.select.allow_trained:
            away |= self.run.trained_before(self.fit.stage, part, len(ids))
        columns = {"zone": pa.array(sort_key(score, order), mask=away)}
        columns["left_out"] = pa.array(np.isnan(score) & ~failed & ~others)
        columns["unanswered"] = pa.array(unanswered & ~failed & ~others)
        if self.replayed:
            again = shuffled(ids, self.run.config.seed, self.fit.stage, "replay")
            may = mastered(self.run, measured, judged)
            may[self.run.probe_rows(part)] = False
            may &= ~unanswered
            columns["replay"] = pa.array(again, mask=~may)
        if self.groups:
            columns["group"] = pa.array(group_numbers(self.run, part, list(self.groups)))
        if self.unit == "tokens":
            columns["weight"] = self._tokens(measured)
        return {"keys": pa.table(columns), "judged": judged}

    def _unanswered(self, measured: pa.Table) -> NDArray[np.bool_]:
        """Which items there is nothing to train on of: no reference, no right response of the model's own.

        None of those that are chosen to be measured, and may be answered then.
        """
        if not self.run.config.only_own or self.among == "not measured":
            return np.zeros(measured.num_rows, dtype=bool)
        return np.asarray(pc.is_null(measured["own_tokens"]).to_numpy())

    def _tokens(self, measured: pa.Table) -> pa.ChunkedArray:
        """Response tokens of each item, of what would be trained on."""
        if self.run.config.train.target != "own":
            return measured["n_tokens"]
        return pc.coalesce(measured["own_tokens"], measured["n_tokens"])

    def _others(self, part: str, known: Known) -> NDArray[np.bool_]:
        """Which items of a part are not to be chosen from, whatever they score: probes, and by ``among``."""
        others = np.zeros(len(known.stage), dtype=bool)
        if self.among != "known":
            others |= (known.stage == self.fit.stage) != (self.among == "measured")
        if self.within is not None:
            others |= drifted_part(self.run, self.fit, known) != self.within
        others[self.run.probe_rows(part)] = True
        return others
