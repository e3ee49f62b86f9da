"""Accuracy and NLL of a model on the evaluation set: measured as the pool is, with one greedy response."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from zpd_ray.engines.base import ModelRef
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.pipeline.measure.measure import measure
from zpd_ray.rundir.layout import ANSWERS, EVALUATION
from zpd_ray.rundir.records import Metrics, save_metrics
from zpd_ray.rundir.store import Store


def evaluate_model(session: Session, model: ModelRef, directory: str) -> Metrics:
    """Measure the evaluation set with ``model``; returns and writes ``directory``/metrics.json."""
    metrics, store = Metrics(), session.run.store
    if session.run.config.evaluation is not None:
        into = f"{directory}/evaluation"
        measure(session, ANSWERS, model, EVALUATION, into, rollouts=1)
        metrics = _metrics(store, into)
    save_metrics(store, directory, metrics)
    return metrics


def _metrics(store: Store, into: str) -> Metrics:
    measured = pa.concat_tables([_with_group(store, into, name) for name in store.names(into)])
    total = measured.num_rows
    measured = measured.filter(pc.is_valid(measured["nll"]))
    groups = measured.group_by("group").aggregate([("credit", "mean")])
    return Metrics(
        items=measured.num_rows,
        failed=total - measured.num_rows,
        right=pc.sum(measured["successes"]).as_py() or 0,
        accuracy=pc.mean(pc.cast(measured["credit"], pa.float64())).as_py(),
        nll=pc.mean(pc.cast(measured["nll"], pa.float64())).as_py(),
        unparsed=pc.sum(measured["unparsed"]).as_py() or 0,
        groups={row["group"]: row["credit_mean"] for row in groups.sort_by("group").to_pylist()},
    )


def _with_group(store: Store, into: str, name: str) -> pa.Table:
    """Measured rows and the group of each; evaluation sets are small enough to hold."""
    group = store.read_table(f"{EVALUATION}/{name}", ["group"])["group"]
    measured = store.read_table(f"{into}/{name}", ["nll", "successes", "credit", "unparsed"])
    return measured.append_column("group", pc.fill_null(group, ""))
