"""Select a stage's training items: the exact top of the budget by score, in constant memory.

Parts are scored one by one, and passed over as often as the search needs; only histograms, and the few rows
around a threshold, come to the driver.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zpd_ray import schema
from zpd_ray.calibration import Fit
from zpd_ray.config import Config
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster import parts
from zpd_ray.pipeline.select.scoring import Ranked, Scoring
from zpd_ray.pipeline.select.selected import ZONE_P, Buckets, summarise, write_selected
from zpd_ray.rundir.store import Store
from zpd_ray.selection.budget import Amount, replay_share, resolve_budget
from zpd_ray.selection.keys import Keys
from zpd_ray.selection.top import DIGITS, NOTHING, SORTABLE_ROWS, Prefix, Threshold, Top, find_top, histogram

KEYED = pa.schema([("key", pa.uint64()), ("item_id", pa.string()), ("weight", pa.int64())])


def select(config: Config, store: Store, fit: Fit) -> dict[str, Any]:
    """Write ``stages/NN/selected`` and ``chosen``, and the summary that is returned as selection.json."""
    pool = store.read_json("pool.json")
    amount = resolve_budget(config.select.budget, pool["items"], pool["response_tokens"])
    replay_budget = replay_share(amount, config.select.replay)
    scoring = Scoring(config, store, fit, amount.unit, replay_budget > 0)
    store.remove(scoring.scratch)  # of an attempt that was killed
    names = store.names("pool")
    small = pool["items"] <= SORTABLE_ROWS
    replay = _top(scoring, names, "replay", replay_budget, small)
    scoring = replace(scoring, replay=replay.threshold)
    zone = _top(scoring, names, "zone", amount.value - replay.weight, small)
    if zone.rows + replay.rows == 0:
        raise ZpdError(
            f"stage {fit.stage} has nothing to select: every measured item was trained on before, or none "
            f"fits the budget of {amount.value} {amount.unit}; use fewer stages, another "
            "budget, or select.allow_trained"
        )
    summary = _write(scoring, names, zone.threshold, Buckets.of(zone, replay))
    summary |= {"budget": amount.value, "unit": amount.unit}
    summary["warnings"] = _warnings(config, amount, zone, replay, summary)
    store.remove(scoring.scratch)
    store.write_json(f"{scoring.directory}/selection.json", summary)
    return summary


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
    """Rows and weight per digit over all parts; tasks add up theirs, and send only the digits they hold."""

    def of_parts(names: list[str]) -> dict[str, Any]:
        counts = np.zeros((2, DIGITS), dtype=np.int64)
        for name in names:
            ranked = scoring.ranked(name, reason)
            counts += histogram(ranked.keys, ranked.weight, prefix)
        digits = np.flatnonzero(counts[0])
        return {"digits": digits.tobytes(), "counts": counts[:, digits].tobytes()}

    total = np.zeros((2, DIGITS), dtype=np.int64)
    for row in parts.sums(names, of_parts):
        digits = np.frombuffer(row["digits"], dtype=np.int64)
        total[:, digits] += np.frombuffer(row["counts"], dtype=np.int64).reshape(2, -1)
    return total


def _collect(
    scoring: Scoring, names: list[str], reason: str, prefix: Prefix
) -> tuple[Keys, NDArray[np.object_], NDArray[np.int64]]:
    """The rows under a prefix: the few among which the budget runs out."""

    def of_part(name: str) -> pa.Table:
        ranked = scoring.ranked(name, reason)
        ranked = ranked.take(prefix.contains(ranked.keys))
        return pa.table([ranked.keys, scoring.ids(name, ranked.rows), ranked.weight], schema=KEYED)

    found: Any = parts.tables(names, of_part).iter_batches(batch_size=None, batch_format="pyarrow")
    rows = pa.concat_tables([KEYED.empty_table(), *(table for table in found if table.num_rows)])
    return (
        rows["key"].to_numpy(),
        rows["item_id"].to_numpy(),
        rows["weight"].to_numpy(),
    )


def _write(scoring: Scoring, names: list[str], zone: Threshold, buckets: Buckets) -> dict[str, Any]:
    """Each part writes which of its items were chosen; the chosen rows go to files in order of rank.

    Returns the summary over all files.
    """
    rows = parts.tables(names, partial(_chosen_rows, scoring, zone, buckets))
    write = partial(write_selected, scoring.store, f"{scoring.directory}/selected", buckets)
    grouped = rows.groupby("bucket", num_partitions=buckets.count)
    return summarise(grouped.map_groups(write, batch_format="pyarrow").iter_rows())


def _chosen_rows(scoring: Scoring, zone: Threshold, buckets: Buckets, name: str) -> pa.Table:
    chosen = {"zone": scoring.chosen(name, "zone", zone)}
    if scoring.replayed:
        chosen["replay"] = scoring.chosen(name, "replay", scoring.replay)
    items = schema.ITEM.empty_table()
    if any(len(ranked.rows) for ranked in chosen.values()):
        items = scoring.store.read_table(f"pool/{name}")
    table = pa.concat_tables(
        _with_scores(scoring, name, items, ranked, reason, buckets) for reason, ranked in chosen.items()
    )
    scoring.store.write_table(
        f"{scoring.directory}/chosen/{name}", table.select(["item_id", "reason", "row"])
    )
    return table.drop_columns("row")


def _with_scores(
    scoring: Scoring, name: str, items: pa.Table, ranked: Ranked, reason: str, buckets: Buckets
) -> pa.Table:
    items = items.take(ranked.rows)
    judged = scoring.judge(name, ranked.rows, items["item_id"])
    columns: dict[str, Any] = {
        **vars(judged),
        "reason": pa.array([reason] * len(ranked.rows), pa.string()),
        "key": ranked.keys,
        "bucket": buckets.of_keys(ranked.keys, reason),
        "row": ranked.rows,
    }
    for column, values in columns.items():
        items = items.append_column(column, pa.array(values))
    return items


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
