"""A session: Ray for the length of a command, and the workers of a run."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray._private import ray_constants
from ray._private import utils as ray_utils
from ray.data.context import ShuffleStrategy

from zpd_ray import ray_folder
from zpd_ray.config import ClusterConfig
from zpd_ray.engines.base import ModelRef
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster.resources import check_resources, scoring_cpus, training_cpus
from zpd_ray.pipeline.cluster.workers import Workers
from zpd_ray.rundir import Run
from zpd_ray.terminal import say

if TYPE_CHECKING:
    from zpd_ray.pipeline.measure.scorers import Scorers
    from zpd_ray.pipeline.train.job import TrainJob

IDLE_VARIABLE = "RAY_idle_worker_killing_time_threshold_ms"
IDLE_WORKER_MS = 60_000
PREEMPTION_VARIABLE = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
BEAT_VARIABLE = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
BEAT_SECONDS = 0.5
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Session:
    """What the steps of a run share: Ray, and the actors that live as long.

    A cluster that was running before is left running.
    """

    def __init__(self, run: Run, workers: Workers | None = None) -> None:
        """Nothing is started before ``with session:``.

        workers: of another session, which this one goes on with, and leaves up unless it fails.
        """
        self.run = run
        self._lent, self._workers = workers is not None, workers or Workers()
        self._restore: Callable[[], None] | None = None  # Ray Data's settings
        self._started = False

    def __enter__(self) -> Session:
        """Start or join Ray. Raises ZpdError when no cluster answers, or it lacks what the run asks for."""
        cluster = self.run.config.cluster
        self._started = not ray.is_initialized()
        self._restore = _data_settings()
        try:
            if self._started:
                start(cluster, scoring_cpus(self.run.config) + training_cpus(self.run.config))
            set_up_data()
            check_resources(self.run.config)
        except ZpdError:
            self.__exit__()  # refused before anything ran: there is nothing to look for in Ray's logs
            raise
        except BaseException as failure:
            self.__exit__(type(failure), failure)
            raise
        return self

    def __exit__(
        self, _kind: object = None, failure: BaseException | None = None, _trace: object = None
    ) -> None:
        """End what was started here; the folder of a Ray of our own stays after an error."""
        if failure is not None or not self._lent:
            self._workers.close()
        if self._restore is not None:
            self._restore()
        if self._started:
            stop(failed=isinstance(failure, Exception))  # Ctrl-C is none

    def scorers(self, model: ModelRef) -> Scorers:
        """The scoring actors."""
        return self._workers.scorers(self.run, model)

    @property
    def scores(self) -> bool:
        """Whether scoring actors have their place."""
        return self._workers.score

    def train_job(self) -> TrainJob:
        """The training job."""
        return self._workers.train_job(self.run)

    def ability_actor(self) -> Any:
        """The central actor."""
        return self._workers.ability_actor()

    def rest_after_training(self) -> None:
        """The training job gives up its place, where scoring actors need it."""
        self._workers.rest_after_training()

    def close_scorers(self) -> None:
        """End the scoring actors, if there are any."""
        self._workers.close_scorers()


def start(cluster: ClusterConfig, cpus: float) -> None:
    """Join the Ray at the address, or start one here with ``cpus`` for actors beside this machine's cores."""
    # Ray switches its usage reports on by default; a user who did not ask sends nothing.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray Data and Ray Train print their own progress; ours is the one on the screen.
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    with _own_handler():
        if cluster.address != "local":
            _join(cluster.address)
        else:
            _start_here(cpus)


def stop(failed: bool = False) -> None:
    """End the Ray that ``start`` has started, or leave the one that it has joined.

    The folder of the former goes with it, unless the run has failed: then its logs may say why.
    """
    ray.shutdown()
    if not failed:
        ray_folder.remove()
    elif logs := ray_folder.keep():
        say(f"Ray's logs of this run are kept in {logs}")


@contextmanager
def _own_handler() -> Iterator[None]:
    """Ray would put a handler of its own for SIGTERM, which ends the process with a stack: not ours."""
    before = ray_utils.set_sigterm_handler
    ray_utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        ray_utils.set_sigterm_handler = before


def _join(address: str) -> None:
    _check_reachable(address)
    # Ray would look for it at the machine's outer address, where one that we have started does not listen.
    here = address.rpartition("://")[2].rpartition(":")[0] in LOOPBACK
    with _on_loopback() if here else nullcontext():
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)


def _start_here(cpus: float) -> None:
    # Actors that wait and tasks that compute take turns, so all cores are for tasks, too, and no more.
    cores = os.cpu_count() or 1
    folder = ray_folder.make()
    variables = {ray_folder.LOGS_VARIABLE: ray_folder.logs_in(folder)}
    # Ray ends workers that idle for a second: on a small machine every step would start its processes anew,
    # at seconds of a core each (24 starts against 14 in a run of two stages).
    variables[IDLE_VARIABLE] = os.environ.get(IDLE_VARIABLE, str(IDLE_WORKER_MS))
    # Nobody announces that this machine is taken away, so Ray Train needs no process that waits for it.
    variables[PREEMPTION_VARIABLE] = "0"
    # Ray Train looks at its workers every two seconds: so late a checkpoint counts as stored, a job as ended.
    variables[BEAT_VARIABLE] = os.environ.get(BEAT_VARIABLE, str(BEAT_SECONDS))
    with _on_loopback(), _environment(variables):
        ray.init(
            address="local",
            num_cpus=cores + math.ceil(cpus),
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            _temp_dir=str(ray_folder.temp_dir(folder)),
        )
    _close_token()
    options = ray.data.DataContext.get_current().execution_options
    options.resource_limits = ray.data.ExecutionResources.for_limits(cpu=cores)


def _close_token() -> None:
    """Who has Ray's token may run code in a Ray of this user; Ray lets all users of the machine read it."""
    token = Path.home() / ".ray" / "auth_token"
    if token.exists() and token.stat().st_uid == os.getuid():
        token.chmod(0o600)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """This machine's address is 127.0.0.1 for Ray: one that starts in here listens on it alone.

    That is how it is on macOS. On Linux Ray's servers listen on all interfaces, and there is no option: for
    ``_node_ip_address="127.0.0.1"`` Ray takes the machine's outer address. The switch is this constant, which
    Ray reads from RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER when it is imported: too early, one may join a cluster.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """For the processes that are started in here, and not for what this one does later."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _data_settings() -> Callable[[], None]:
    """How to put Ray Data's limits back to what they are now: the context belongs to the process."""
    options = ray.data.DataContext.get_current().execution_options
    return partial(setattr, options, "resource_limits", options.resource_limits)


def set_up_data() -> None:
    """Our own progress on the screen, errors of tasks as they were raised, shuffles by tasks."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # The default shuffles through actors that are started anew each time, at seconds of a core each.
    context.shuffle_strategy = ShuffleStrategy.SORT_SHUFFLE_PULL_BASED
    # A ZpdError of a task must reach the user as it is; its traceback is in Ray's own logs.
    context.raise_original_map_exception = True
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _check_reachable(address: str) -> None:
    """Ray itself waits for minutes for a cluster that is not there."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():
        return  # "auto": Ray finds the cluster of this machine, or says at once that there is none
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as problem:
        raise ZpdError(
            f"no Ray cluster answers at cluster.address = {address!r} ({problem}); expected the address "
            "of a running head node (port 6379 by default), or 'local' to start a Ray of its own"
        ) from None
