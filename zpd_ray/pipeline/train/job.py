"""The driver's end of the training job: one Ray Train job that lives through all stages, and many runs."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any

import ray
import ray.train
from ray.exceptions import RayActorError, RayError
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util import remove_placement_group

from zpd_ray.config import Config
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster.failures import user_error
from zpd_ray.pipeline.cluster.resources import train_nodes
from zpd_ray.pipeline.train.controller import (
    CONTROLLER_VARIABLE,
    StageStatus,
    StageTask,
    start_controller,
)
from zpd_ray.pipeline.train.stages import serve
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import RAY_TRAIN as DIRECTORY
from zpd_ray.rundir.layout import in_words
from zpd_ray.rundir.store import Store
from zpd_ray.terminal import Advance, warn
from zpd_ray.training.allocator import VARIABLES

BUILT_IN = "zpd_ray.pipeline.train.loop:train_loop"
SNAPSHOT = "checkpoint_manager_snapshot.json"  # Ray Train's, in its directory
ATTEMPTS = 4  # at the job itself: Ray Train's own controller may be killed
BEAT_SECONDS = 0.2
CLOSE_SECONDS = 60.0


class TrainJob:
    """Workers that wait for a stage, and the thread of this process in which Ray Train runs."""

    def __init__(self, run: Run) -> None:
        """Workers start at once; they take their place in the cluster until ``close``.

        Checkpoints inside a stage lie in the directory of this run, and are found again by it alone.
        """
        self.config, self.store, self._turns = run.config, run.store, count()
        self._controller, self._controller_name = start_controller(run.config.train.workers)
        self._error: Exception | None = None
        self._attempts, self._idle, self._served, self._closed, self.failed = 0, True, False, False, False
        self._start()

    def train(self, task: StageTask, advance: Advance) -> StageStatus:
        """Hand a stage to the workers and wait until it is finished; its last status.

        Raises ZpdError when it fails: a run that is started again goes on from the last checkpoint.
        """
        task = replace(task, turn=next(self._turns))
        shown, told, self._idle = 0, "", False
        while not (status := ray.get(self._controller.status.remote(task.turn))).finished:
            if not status.known:
                ray.get(self._controller.publish.remote(task))
            if status.failure or self._closed:
                raise self._failure(task.directory, status.failure or "the run was ended")
            self._look_after(task.directory)
            if status.absent and not told:
                told = status.absent
                warn(f"training {in_words(task.directory)}: {told}")
            advance(max(0, status.rows - shown))
            shown = max(shown, status.rows)
            time.sleep(BEAT_SECONDS)
        advance(task.rows[0] - shown)
        self._idle = self._served = True
        return status

    def close(self) -> None:
        """Let the workers go. Those that wait leave at once, and their place in the cluster is free."""
        self._closed = True
        self._let_go()
        if self._idle:
            deadline = time.monotonic() + CLOSE_SECONDS
            while self._thread.is_alive() and time.monotonic() < deadline:
                self._let_go()  # again: a controller that was restarted does not know
                self._thread.join(BEAT_SECONDS)
        if not self._idle or self._thread.is_alive():
            self._give_back_place()
        if self._idle and self._served:
            self.store.remove(DIRECTORY)  # checkpoints inside a stage are of no more use

    def _let_go(self) -> None:
        with suppress(RayError):  # a cluster that is gone has ended them
            ray.get(self._controller.close.remote())

    def _give_back_place(self) -> None:
        """Free the CPUs of workers that nobody looks after any more.

        Ray frees the place that a killed controller of Ray Train has taken when our process ends, not before,
        and what Ray Train has for this asks Ray's dashboard, which a Ray of our own does not start.
        """
        with suppress(RayError):
            place = ray.get(self._controller.place.remote())
            if place is not None:
                remove_placement_group(place)

    def _start(self) -> None:
        self._attempts += 1
        _drop_torn_snapshot(self.store)
        self._thread = threading.Thread(target=self._fit, daemon=True)
        self._thread.start()

    def _fit(self) -> None:
        self._error = None
        trainer = TorchTrainer(
            serve,
            train_loop_config={"function": self.config.train.function or BUILT_IN},
            scaling_config=_scaling(self.config),
            run_config=_run_config(self.store, {CONTROLLER_VARIABLE: self._controller_name} | VARIABLES),
        )
        try:
            trainer.fit()
        except Exception as error:
            self._error = error

    def _look_after(self, directory: str) -> None:
        """Start the job again when Ray Train's own controller was killed."""
        if self._thread.is_alive():
            return
        if isinstance(self._error, RayActorError):
            self._give_back_place()
            if self._attempts < ATTEMPTS:
                self._start()
                return
        raise self._failure(directory, _why_it_ended(self._error)) from self._error

    def _failure(self, directory: str, reason: str) -> ZpdError:
        self.failed = True
        return ZpdError(
            f"training of {directory} failed: {reason}; what was measured and selected is kept: mend the "
            "cause and run again"
        )


def _why_it_ended(error: Exception | None) -> str:
    """The cause of a job that ended with a stage unfinished; None: all its workers returned."""
    if error is None:
        return "its workers left before the stage was finished"
    return str(user_error(error) or error)


def _drop_torn_snapshot(store: Store) -> None:
    """Ray Train writes its list of checkpoints in place: a kill in between would refuse every resumption."""
    name = f"{DIRECTORY}/{SNAPSHOT}"
    try:
        if store.exists(name):
            store.read_json(name)
    except ValueError:
        store.remove(DIRECTORY)


def _scaling(config: Config) -> ScalingConfig:
    cluster = config.cluster
    resources: dict[str, float] = {"CPU": cluster.cpus_per_train_worker}
    if cluster.gpus_per_train_worker:
        resources["GPU"] = cluster.gpus_per_train_worker
    # Version 2 of Ray Train has it; the type that checkers see is that of version 1.
    labels: dict[str, Any] = {"label_selector": train_nodes(cluster)} if train_nodes(cluster) else {}
    return ScalingConfig(
        num_workers=config.train.workers,
        use_gpu=cluster.gpus_per_train_worker > 0,
        resources_per_worker=resources,
        **labels,
    )


def _run_config(store: Store, variables: dict[str, str]) -> RunConfig:
    # Version 2 of Ray Train has it; the type that checkers see is that of version 1.
    environment: dict[str, Any] = {"worker_runtime_env": {"env_vars": variables}}
    return RunConfig(
        name=DIRECTORY,  # the same name and place: Ray Train finds its last checkpoint again
        storage_path=store.path(),
        storage_filesystem=store.fs,
        checkpoint_config=CheckpointConfig(num_to_keep=1),
        failure_config=FailureConfig(max_failures=-1),  # the controller counts them, stage by stage
        **environment,
    )
