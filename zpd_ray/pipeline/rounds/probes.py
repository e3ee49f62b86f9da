"""The probes of a run: chosen once, after the fit of stage 0 and before its selection."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zpd_ray.calibration import Fit
from zpd_ray.difficulty import guess_floor
from zpd_ray.drift import Asked
from zpd_ray.hashing import item_keys, streams, uniforms
from zpd_ray.matching import zpd_score
from zpd_ray.pipeline.fit.ability import followed_parts
from zpd_ray.rundir import Run
from zpd_ray.rundir.groups import group_names
from zpd_ray.rundir.judging import RESPONSES, difficulties, group_ahead, last_measured, read_measured
from zpd_ray.rundir.layout import ANSWERS, POOL, PROBES
from zpd_ray.selection.probes import most_probes, probe_order

PROBE = 104  # the stream of random numbers that chooses probes


def choose_probes(run: Run, fit: Fit) -> None:
    """Write probes.parquet (part, row, in the order of asking), unless it is there; fit: of stage 0.

    From the parts that ability follows: a sample of the pool, which fits in memory.
    """
    if run.config.measure.scope == "pool" or run.store.exists(PROBES):
        return
    names = run.store.names(POOL)[: followed_parts(run)]
    rows = pa.concat_tables([_candidates(run, fit, name) for name in names])
    b, information, draw = (rows[name].to_numpy() for name in ("b", "information", "draw"))
    order = probe_order(b, information, np.array(rows["group"].to_pylist(), dtype=np.str_), draw)
    most = most_probes(run.config.measure, run.store.read_json(f"{POOL}.json")["items"])
    run.store.write_table(PROBES, rows.select(["part", "row"]).take(order[:most]).combine_chunks())


def _candidates(run: Run, fit: Fit, name: str) -> pa.Table:
    """Part, row, group, b, information and a draw of the items of a part that were measured."""
    known = last_measured(run, 0, ANSWERS, name)
    guess = guess_floor(run.options(name, len(known.stage)))
    b, b_sd, _ = difficulties(run, fit, known, guess)
    keys = streams(item_keys(known.answers["item_id"]), run.config.seed, PROBE)
    rows = np.flatnonzero(pc.is_valid(known.answers["nll"]).to_numpy())
    columns = {
        "row": np.arange(len(b)),
        "b": b,
        "information": zpd_score(fit.ability.theta, b, b_sd, guess, criterion="information"),
        "draw": uniforms(keys),
    }
    table = pa.table({name: values[rows] for name, values in columns.items()})
    group = pa.array(group_names(run, name)[rows].tolist(), pa.string())
    return table.append_column("group", group).append_column(
        "part", pa.array([name] * len(rows), pa.string())
    )


def asked(run: Run, fit: Fit, first: int) -> Asked:
    """The ``first`` probes with what they answered at the fit's stage, and what was predicted of them."""
    found = []
    for name in sorted(set(run.store.read_table(PROBES)["part"].slice(0, first).to_pylist())):
        rows = run.probe_rows(name, first)
        now = read_measured(run, fit.stage, ANSWERS, name, list(RESPONSES)).take(rows)
        before = last_measured(run, fit.stage - 1, ANSWERS, name)
        guess = guess_floor(run.options(name, len(before.stage)))[rows]
        b, b_sd, _ = difficulties(run, fit, before.take(rows), guess)
        if (ahead := group_ahead(run, fit, name)) is not None:
            b = b - ahead[rows]  # what the group's own ability explains has not drifted
        s, k = (now[column].to_numpy().astype(np.int64) for column in RESPONSES)
        found.append(Asked(s, k, guess, b, b_sd, group_names(run, name)[rows]))
    return Asked(*(np.concatenate(values) for values in zip(*found, strict=True)))
