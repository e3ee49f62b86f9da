"""MLflow itself, without a server: its database in a file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.tracking.conftest import MakeRun, expected, reopen
from zpd_ray.rundir.layout import TRACKING
from zpd_ray.tracking.mlflow import EXPERIMENT, TAG
from zpd_ray.tracking.telling import Telling, tracked

pytest.importorskip("mlflow", reason="the extra 'mlflow' is not installed")
STORES = {"sqlite": "sqlite:///{}/mlflow.db", "files": "{}/mlruns"}


@pytest.fixture(params=STORES)
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database, or the directory of files that MLflow 3 has to be asked for."""
    if request.param == "sqlite":
        pytest.importorskip("sqlalchemy", reason="mlflow-skinny without a database")
        pytest.importorskip("alembic", reason="mlflow-skinny without a database")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return STORES[request.param].format(tmp_path)


def runs(uri: str, experiment: str = EXPERIMENT) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def metrics(uri: str) -> list[tuple[tuple[str, int], float]]:
    """All that the one run has."""
    from mlflow import MlflowClient

    [run] = runs(uri)
    client = MlflowClient(tracking_uri=uri)
    return [
        ((key, metric.step), metric.value)
        for key in run.data.metrics
        for metric in client.get_metric_history(run.info.run_id, key)
    ]


def test_everything_is_there_once_with_the_config(make_run: MakeRun, uri: str) -> None:
    run = make_run(mlflow=uri)
    with tracked(run):
        pass
    found = metrics(uri)
    assert max(Counter(place for place, _ in found).values()) == 1
    assert dict(found) == pytest.approx(expected(run))
    [there] = runs(uri)
    assert there.data.tags[TAG] == there.info.run_name == run.store.read_json(TRACKING)["run"]
    assert there.data.params["train.method"] == "lora"
    assert there.data.params["select.budget.fraction"] == "0.1"
    assert there.info.status == "FINISHED"


def test_a_run_that_is_killed_and_resumed_is_one_run_and_tells_nothing_twice(
    make_run: MakeRun, uri: str
) -> None:
    run = make_run(mlflow=uri)
    back = reopen(run, 1, "train.json"), reopen(run, 1, "metrics.json")
    Telling(run).tell()
    assert ("train/loss", 3) not in dict(metrics(uri))
    assert runs(uri)[0].info.status == "RUNNING"
    for put in back:
        put()
    # Killed after MLflow had a step, and before the run directory says so.
    run.store.write_json(TRACKING, run.store.read_json(TRACKING) | {"told": {}})
    Telling(run).tell()
    found = metrics(uri)
    assert max(Counter(place for place, _ in found).values()) == 1
    assert dict(found) == pytest.approx(expected(run))


def test_the_experiment_is_that_of_the_environment(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    uri = STORES["files"].format(tmp_path)
    Telling(make_run(mlflow=uri)).tell()
    assert len(runs(uri, "mine")) == 1


def test_a_server_that_is_down_is_told_of_once_and_ends_nothing(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = make_run(mlflow="http://127.0.0.1:9")
    back = reopen(run, 1, "metrics.json")
    telling = Telling(run)
    telling.tell()
    back()
    telling.tell()
    telling.close()
    said = capsys.readouterr().err
    assert said.count("warning: the tracker mlflow cannot be told how this run does") == 1
    assert run.store.read_json(TRACKING)["told"] == {}
