"""MLflow: a run of an experiment, by the client that ``mlflow-skinny`` has, and the whole ``mlflow``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar

from zpd_ray.tracking.base import Point

EXPERIMENT = "zpd-ray"  # where MLFLOW_EXPERIMENT_NAME names no other
TAG = "zpd_ray.run"  # by which a run is found again
METRICS, PARAMETERS = 1000, 100  # that a server takes at once
NAME = re.compile(r"[\w\-. :/]+")  # what MLflow takes for one


class MLflow:
    """What a step was told of before is asked of the server, not remembered: nothing is there twice."""

    needs: ClassVar[str] = "mlflow"

    def __init__(self, target: str, run: str, config: Mapping[str, Any]) -> None:
        """target: tracking URI, such as ``http://127.0.0.1:5000``."""
        from mlflow import MlflowClient

        # Where the run can be looked at: stdout is for results.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        self._client = MlflowClient(tracking_uri=target)
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT))
        found = self._client.search_runs([experiment], f"tags.`{TAG}` = '{run}'", max_results=1)
        self._steps: dict[str, set[int]] | None = {} if found else None  # None: nothing can be there yet
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
        else:
            self._run = self._client.create_run(experiment, run_name=run, tags={TAG: run}).info.run_id
            self._log_config(config)

    def log(self, name: str, points: Sequence[Point]) -> None:
        """Those metrics of the points that the run does not have."""
        from mlflow.entities import Metric

        new = (
            Metric(key, value, int(point.at * 1000), point.step)
            for point in points
            for key, value in point.values.items()
            if NAME.fullmatch(key) and point.step not in self._known(key)
        )
        while some := list(islice(new, METRICS)):
            self._client.log_batch(self._run, metrics=some)

    def close(self) -> None:
        """The run has ended, for now."""
        self._client.set_terminated(self._run)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found is not None else self._client.create_experiment(name))

    def _log_config(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        values = (Param(key, str(value)) for key, value in config.items() if NAME.fullmatch(key))
        while some := list(islice(values, PARAMETERS)):
            self._client.log_batch(self._run, params=some)

    def _known(self, key: str) -> set[int]:
        """Steps of a metric that the run had when it was opened; asked once."""
        if self._steps is None:
            return set()
        if key not in self._steps:
            self._steps[key] = {m.step for m in self._client.get_metric_history(self._run, key)}
        return self._steps[key]
