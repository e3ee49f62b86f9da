"""Select a stage's training items: the exact top of the budget by score, in constant memory.

Scores are computed part by part, as often as a pass needs them; only histograms, and the few rows around a
threshold, come to the driver.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zpd_ray.calibration import Fit
from zpd_ray.config import Config
from zpd_ray.errors import ZpdError
from zpd_ray.matching import probability
from zpd_ray.pipeline import parts
from zpd_ray.pipeline.ability import option_counts, trained_before
from zpd_ray.pipeline.selected import ZONE_P, Buckets, summarise, write_selected
from zpd_ray.pipeline.store import Store
from zpd_ray.selection import METHODS, Candidates
from zpd_ray.selection.budget import Amount, replay_share, resolve_budget
from zpd_ray.selection.keys import Keys, item_hash, sort_key
from zpd_ray.selection.top import DIGITS, NOTHING, SORTABLE_ROWS, Prefix, Threshold, Top, find_top, histogram

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]


KEYED = pa.schema([("key", pa.uint64()), ("item_id", pa.string()), ("weight", pa.int64())])


def select(config: Config, store: Store, fit: Fit) -> dict[str, Any]:
    """Write ``stages/NN/selected`` and ``chosen``, and the summary that is returned as selection.json."""
    pool = store.read_json("pool.json")
    amount = resolve_budget(config.select.budget, pool["items"], pool["response_tokens"])
    scoring = Scoring(config, store, fit, amount.unit)
    names = store.names("pool")
    small = pool["items"] <= SORTABLE_ROWS
    replay = _top(scoring, names, "replay", replay_share(amount, config.select.replay), small)
    scoring = Scoring(config, store, fit, amount.unit, replay.threshold)
    zone = _top(scoring, names, "zone", amount.value - replay.weight, small)
    if zone.rows + replay.rows == 0:
        raise ZpdError(
            f"stage {fit.stage} has nothing to select: every measured item was trained on before, or none "
            f"fits the budget of {amount.value} {amount.unit}; use fewer stages, another "
            "budget, or select.allow_trained"
        )
    buckets = Buckets.of(zone, replay)
    _write(scoring, names, zone.threshold, buckets)
    summary = summarise(store, f"{scoring.directory}/selected") | {
        "budget": amount.value,
        "unit": amount.unit,
    }
    summary["warnings"] = _warnings(config, amount, zone, replay, summary)
    store.write_json(f"{scoring.directory}/selection.json", summary)
    return summary


@dataclass(frozen=True)
class Scored:
    """A part as selection sees it; arrays of shape (n,)."""

    item_ids: NDArray[np.object_]
    weight: NDArray[np.int64]  # what an item takes of the budget
    b: Floats
    b_sd: Floats
    p: Floats
    score: Floats
    key: dict[str, Keys]  # by reason
    eligible: dict[str, Booleans]  # by reason


@dataclass(frozen=True)
class Scoring:
    """How a part is scored: the same in every pass."""

    config: Config
    store: Store
    fit: Fit
    unit: str
    replay: Threshold = field(default=NOTHING)

    @property
    def directory(self) -> str:
        """Of the stage."""
        return f"stages/{self.fit.stage:02d}"

    def score(self, name: str) -> Scored:
        """Score the items of a part from their measurements and the fit."""
        measured = self.store.read_table(f"{self.directory}/measurements/{name}")
        ids = measured["item_id"]
        successes = measured["successes"].to_numpy().astype(np.int64)
        rollouts = measured["rollouts"].to_numpy().astype(np.int64)
        options = option_counts(self.config, self.store, name).to_numpy().astype(np.float64)
        guess = np.divide(1.0, options, out=np.zeros_like(options), where=options > 0)
        nll = pc.fill_null(measured["nll"], 1.0).to_numpy().astype(np.float64)  # not eligible, see below
        b, b_sd = self.fit.difficulty(nll, successes, rollouts, guess)
        p = probability(self.fit.theta, b, guess)
        hashes = item_hash(ids, self.config.seed, self.fit.stage, "select")
        method = METHODS[self.config.select.method]
        score = method.score(Candidates(self.fit.theta, hashes, b, b_sd, guess), self.config.select)
        replay_key = item_hash(ids, self.config.seed, self.fit.stage, "replay")
        item_ids = ids.to_pandas().to_numpy(dtype=object)
        mastered = (p >= self.config.select.mastered_p) & (successes == rollouts) & (rollouts > 0)
        eligible = self._eligible(name, measured, mastered)
        eligible["zone"] &= ~(eligible["replay"] & self.replay.keeps(replay_key, item_ids))
        tokens = measured["n_tokens"].to_numpy().astype(np.int64)
        return Scored(
            item_ids,
            tokens if self.unit == "tokens" else np.ones_like(tokens),
            b,
            b_sd,
            p,
            score,
            {"zone": sort_key(score, method.upper, hashes), "replay": replay_key},
            eligible,
        )

    def _eligible(self, name: str, measured: pa.Table, mastered: Booleans) -> dict[str, Booleans]:
        valid = pc.is_valid(measured["nll"]).to_numpy()
        fresh = np.ones(len(valid), dtype=bool)
        if not self.config.select.allow_trained:
            fresh = ~trained_before(self.store, self.fit.stage, name, measured["item_id"]).to_numpy()
        return {"zone": valid & fresh, "replay": valid & mastered}


def _top(scoring: Scoring, names: list[str], reason: str, budget: int, small: bool) -> Top:
    if budget == 0:
        return Top(NOTHING, 0, 0, np.zeros(DIGITS, dtype=np.int64))
    if small:  # one pass brings all keys; the search is the same
        keys, ids, weights = _collect(scoring, names, reason, Prefix())

        def under(prefix: Prefix) -> tuple[Keys, NDArray[np.object_], NDArray[np.int64]]:
            inside = prefix.contains(keys)
            return keys[inside], ids[inside], weights[inside]

        return find_top(budget, lambda prefix: histogram(keys, weights, prefix), under)
    return find_top(
        budget,
        lambda prefix: _histogram(scoring, names, reason, prefix),
        lambda prefix: _collect(scoring, names, reason, prefix),
    )


def _histogram(scoring: Scoring, names: list[str], reason: str, prefix: Prefix) -> NDArray[np.int64]:
    """Rows and weight per digit over all parts; parts send only the digits that they hold."""

    def of_part(name: str) -> dict[str, Any]:
        scored = scoring.score(name)
        inside = scored.eligible[reason]
        counts = histogram(scored.key[reason][inside], scored.weight[inside], prefix)
        digits = np.flatnonzero(counts[0])
        rows, weight = counts[:, digits].tolist()
        return {"digits": digits.tolist(), "rows": rows, "weight": weight}

    total = histogram(np.zeros(0, np.uint64), np.zeros(0, np.int64), prefix)
    for row in parts.results(names, of_part):
        digits = np.asarray(row["digits"], dtype=np.int64)
        total[0, digits] += row["rows"]
        total[1, digits] += row["weight"]
    return total


def _collect(
    scoring: Scoring, names: list[str], reason: str, prefix: Prefix
) -> tuple[Keys, NDArray[np.object_], NDArray[np.int64]]:
    """The rows under a prefix: the few among which the budget runs out."""

    def of_part(name: str) -> pa.Table:
        scored = scoring.score(name)
        inside = np.flatnonzero(scored.eligible[reason] & prefix.contains(scored.key[reason]))
        columns = [scored.key[reason][inside], scored.item_ids[inside], scored.weight[inside]]
        return pa.table(columns, schema=KEYED)

    found: Any = parts.tables(names, of_part).iter_batches(batch_size=None, batch_format="pyarrow")
    rows = pa.concat_tables([KEYED.empty_table(), *(table for table in found if table.num_rows)])
    return (
        rows["key"].to_numpy(),
        rows["item_id"].to_pandas().to_numpy(dtype=object),
        rows["weight"].to_numpy(),
    )


def _write(scoring: Scoring, names: list[str], zone: Threshold, buckets: Buckets) -> None:
    """Each part writes which of its items were chosen; the chosen rows go to files in order of rank."""
    rows = parts.tables(names, partial(_chosen_rows, scoring, zone, buckets))
    write = partial(write_selected, scoring.store, f"{scoring.directory}/selected", buckets)
    grouped = rows.groupby("bucket", num_partitions=buckets.count)
    for _file in grouped.map_groups(write, batch_format="pyarrow").iter_rows():
        continue


def _chosen_rows(scoring: Scoring, zone: Threshold, buckets: Buckets, name: str) -> pa.Table:
    scored = scoring.score(name)
    chosen = {
        "zone": scored.eligible["zone"] & zone.keeps(scored.key["zone"], scored.item_ids),
        "replay": scored.eligible["replay"] & scoring.replay.keeps(scored.key["replay"], scored.item_ids),
    }
    items = scoring.store.read_table(f"pool/{name}")
    tables = []
    for reason, mask in chosen.items():
        rows = np.flatnonzero(mask)
        tables.append(_with_scores(items.take(rows), scored, rows, reason, buckets))
    table = pa.concat_tables(tables)
    scoring.store.write_table(f"{scoring.directory}/chosen/{name}", table.select(["item_id", "reason"]))
    return table


def _with_scores(
    items: pa.Table, scored: Scored, rows: NDArray[np.int64], reason: str, buckets: Buckets
) -> pa.Table:
    keys = scored.key[reason][rows]
    for name in ("b", "b_sd", "p", "score"):
        items = items.append_column(name, pa.array(getattr(scored, name)[rows]))
    items = items.append_column("reason", pa.array([reason] * len(rows), pa.string()))
    items = items.append_column("key", pa.array(keys, pa.uint64()))
    return items.append_column("bucket", pa.array(buckets.of_keys(keys, reason), pa.int64()))


def _warnings(config: Config, amount: Amount, zone: Top, replay: Top, summary: dict[str, Any]) -> list[str]:
    """What a reader of the selection must know; nothing when the budget was spent as asked."""
    found = []
    spent = zone.weight + replay.weight
    # A token budget ends at the first item that does not fit; a per cent of it may stay unspent.
    if spent < (1.0 if amount.unit == "items" else 0.99) * amount.value:
        found.append(f"only {spent} of {amount.value} {amount.unit} were left to select")
    asked = replay_share(amount, config.select.replay)
    if replay.weight < 0.99 * asked:
        found.append(
            f"replay: {replay.weight} of {asked} {amount.unit} were mastered; the zone took the rest"
        )
    if config.select.method == "zpd" and summary["outside_zone"]:
        found.append(
            f"the zone is small: {summary['outside_zone']} of {summary['zone']} items have p below "
            f"{ZONE_P[0]} or above {ZONE_P[1]}, the nearest there were"
        )
    return found
