"""A run among Ray's metrics."""

from __future__ import annotations

import re
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from tests.pipeline.conftest import perform_in
from zpd_ray.config import Config
from zpd_ray.pipeline.cluster.metrics import GAUGES, Metrics, values
from zpd_ray.report.live import Live, Look
from zpd_ray.report.live.look import Activity
from zpd_ray.rundir import Store
from zpd_ray.rundir.progress import Recorder

SECONDS = 90.0  # in which Ray's agents have told what was set; they report every 10


def test_what_is_known_of_a_run_is_told_by_gauge_and_stage(plain_run: tuple[Config, Store]) -> None:
    live = Look(plain_run[1].root).now()
    at_work = Activity("measure", 1, "measuring stage 1", 5, 10, 2.0, 9.0, 3.0, 2.5)
    live = replace(
        live, doing=[at_work, replace(at_work, step="ingest", stage=None, rate=7.0)], run_left=60.0
    )
    told = {(name, stage): value for name, stage, value in values(replace(live, base_accuracy=0.25))}
    assert {name for name, _ in told} <= GAUGES.keys()
    for each in live.stages:
        stage = str(each.stage)
        assert told["zpd_ray_theta", stage] == each.theta
        assert told["zpd_ray_theta_se", stage] == each.se
        assert told["zpd_ray_p_mean", stage] == each.p_mean
        assert told["zpd_ray_selecting_seconds", stage] == each.cost.selecting_seconds > 0
        assert ("zpd_ray_accuracy", stage) not in told  # it has no evaluation set
    assert told["zpd_ray_accuracy", "base"] == 0.25
    assert told["zpd_ray_items_per_second", "1"] == 2.0
    assert told["zpd_ray_tokens_per_second", "1"] == 9.0
    assert told["zpd_ray_items_per_second", ""] == 7.0
    assert told["zpd_ray_run_left_seconds", ""] == 60.0
    silent = replace(live, base_accuracy=None, doing=[], run_left=None, stages=[])
    assert list(values(silent)) == []


def exported(run: str) -> dict[tuple[str, str], float]:
    """What Ray's agent tells Prometheus of a run, by gauge and stage."""
    port = ray.nodes()[0]["MetricsExportPort"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        lines = [line for line in answer.read().decode().splitlines() if f'run="{run}"' in line]
    found = {}
    for line in lines:
        stage, name = re.search(r'stage="([^"]*)"', line), line.partition("{")[0]
        assert stage
        found[name, stage[1]] = float(line.rpartition(" ")[2])
    return found


@pytest.mark.nightly
def test_ray_exports_them_for_as_long_as_the_run_tells_them(local_ray: None, tmp_path: Path) -> None:
    """Ray forgets a gauge that was not set for 20 s; a stage may be measured for hours."""
    _, store = perform_in(tmp_path, stages=1)
    live: Live = Look(store.root).now()
    expected = {(f"ray_{name}", stage): value for name, stage, value in values(live)}
    assert ("ray_zpd_ray_theta", "0") in expected
    look, metrics = Look(store.root), Metrics()
    with Recorder(store, "run") as recorder, recorder.heard_by(lambda: metrics.tell(look.now())):
        deadline = time.monotonic() + SECONDS
        while (seen := exported(live.run)).keys() < expected.keys():
            assert time.monotonic() < deadline, seen
            time.sleep(1)
        for _ in range(8):  # 40 s
            time.sleep(5)
            assert exported(live.run) == pytest.approx(expected)
