"""The actor between the driver, which has a stage to train, and the train workers, which wait for one."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import ray
from ray.util.placement_group import PlacementGroup

from zpd_ray.config import Config
from zpd_ray.engines import ModelRef
from zpd_ray.ray_folder import ray_logs
from zpd_ray.rundir.store import Store

# A stage whose workers die (preempted, out of memory) is begun again from its last checkpoint, so many times.
WORKER_FAILURES = 3
POLL_SECONDS = 0.05
WAIT_SECONDS = 60.0  # that workers wait in save_checkpoint for one that does not come, before it is told
CONTROLLER_VARIABLE = "ZPD_RAY_CONTROLLER"  # in the environment of train workers: its name


@dataclass(frozen=True)
class StageTask:
    """The training of one stage, as every worker is told of it."""

    config: Config
    store: Store
    model: ModelRef  # that the stage begins with
    directory: str  # of the stage, in the run directory
    items: int
    rows: list[int]  # of each worker's shard, over all epochs
    shards: list[Any]  # one ray.data.Dataset per worker: places of items, in training order
    turn: int = 0  # among the stages that a job trains, those of many runs in a comparison; the job counts


@dataclass(frozen=True)
class StageStatus:
    """What the controller knows of a stage."""

    known: bool  # False for an actor that was restarted: it has to be told again
    rows: int  # that worker 0 has taken
    finished: bool
    failure: str  # a sentence, or empty
    waited: float | None  # seconds in which worker 0 had no stage to train; None for its first
    starting: float | None  # seconds in which its first stage waited for worker 0; None for others
    absent: str  # a sentence about a worker that others have long waited for in save_checkpoint, or empty


class Controller:
    """Holds nothing that the driver would not tell it again, so that Ray may restart it."""

    def __init__(self) -> None:
        """Nothing to train yet."""
        self._turn = -1
        self._task: StageTask | None = None
        self._open = True
        self._rows, self._starts, self._finished = 0, 0, -1
        self._failure, self._last_error = "", ""
        self._preempted: set[int] = set()  # which starts ended with a node that was taken away
        self._waited: float | None = None
        self._starting: float | None = None
        self._published = 0.0
        self._place: PlacementGroup | None = None
        self._owners: dict[str, int] = {}  # of the files of checkpoints, by name
        self._saves: dict[int, int] = {}  # how often each worker has called save_checkpoint
        self._saving = 0.0  # when the last one called it

    # --- for the driver ---

    async def publish(self, task: StageTask) -> None:
        """Hand this stage to the workers."""
        if task.turn != self._turn:
            self._turn, self._task = task.turn, task
            self._rows, self._starts, self._waited, self._starting = 0, 0, None, None
            self._published = time.monotonic()
            self._owners, self._saves, self._preempted = {}, {}, set()

    async def close(self) -> None:
        """There is no further stage."""
        self._open = False

    async def status(self, turn: int) -> StageStatus:
        """How the stage of that turn is going."""
        known, finished = self._turn == turn, self._finished >= turn
        told = (self._failure, self._waited, self._starting, self._absent())
        return StageStatus(known, self._rows, finished, *told)

    def _absent(self) -> str:
        workers = range(len(self._task.rows) if self._task else 0)
        saves = {rank: self._saves.get(rank, 0) for rank in workers}
        if len(set(saves.values())) < 2 or time.monotonic() - self._saving < WAIT_SECONDS:
            return ""
        first, last = max(saves, key=saves.__getitem__), min(saves, key=saves.__getitem__)
        return (
            f"worker {first} waits in its stage.save_checkpoint number {saves[first]} for worker {last}, "
            f"whose last was number {saves[last]}: all workers have to call it after the same step, with "
            "None where they have nothing to keep"
        )

    async def place(self) -> PlacementGroup | None:
        """Where the workers that started last have their CPUs; None before any did."""
        return self._place

    # --- for the workers ---

    async def report_place(self, place: PlacementGroup | None) -> None:
        """The workers have started there."""
        self._place = place

    async def next_stage(self, rank: int, after: int) -> StageTask | None:
        """The stage after turn ``after`` (-1: whichever is open), as soon as there is one; None at the end.

        Asking for it says that ``after`` is finished. A stage that worker 0 asks for too often has failed.
        """
        asked = time.monotonic()
        if after < 0:
            self._saves.pop(rank, None)  # of the attempt before
        if rank == 0:
            self._finished = max(self._finished, after)
        while self._turn <= after and self._open and not self._failure:
            await asyncio.sleep(POLL_SECONDS)
        if rank == 0 and self._open:
            self._starts += 1
            now = time.monotonic()
            self._waited, self._starting = (
                (now - asked, None) if after >= 0 else (None, now - self._published)
            )
            deaths = self._starts - 1 - len(self._preempted)
            if deaths > WORKER_FAILURES:
                self._failure = f"its workers died {deaths} times; {self._last_error or f'see {ray_logs()}'}"
        return None if self._failure or not self._open else self._task

    async def claim(self, rank: int, names: list[str]) -> dict[str, int]:
        """Worker ``rank`` hands in files of these names; those that another worker does, and which one."""
        owners = {name: self._owners.setdefault(name, rank) for name in names}
        return {name: owner for name, owner in owners.items() if owner != rank}

    async def report_saving(self, rank: int, count: int) -> None:
        """Worker ``rank`` calls save_checkpoint for the ``count``-th time in this attempt at the stage."""
        self._saves[rank], self._saving = count, time.monotonic()

    async def report_rows(self, rows: int) -> None:
        """Worker 0 has taken so many rows."""
        self._rows = rows

    async def fail(self, reason: str) -> None:
        """What no further attempt would mend."""
        self._failure = reason

    async def report_preemption(self) -> None:
        """The workers that started last were told that a node of theirs will go: their end is no failure."""
        self._preempted.add(self._starts)

    async def report_error(self, error: str) -> None:
        """What a worker died of, as far as it could say."""
        self._last_error = f"one said: {error}"


def start_controller(workers: int) -> tuple[Any, str]:
    """A controller for ``workers`` train workers, and the name by which they find it.

    The name is not used again: the workers of a job that failed may live on for a while after the next one
    has started, and must not take its stages. The controller ends with the last handle that the driver holds.
    """
    name = f"stages-{uuid4().hex}"
    options: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
    options["max_concurrency"] = 10 + workers  # every worker may be waiting in it
    return ray.remote(Controller).options(name=name, namespace=_namespace(), **options).remote(), name


def find_controller(name: str) -> Any:
    """The controller of that name, from any process of the same Ray job."""
    return ray.get_actor(name, namespace=_namespace())


def _namespace() -> str:
    return f"zpd-ray-{ray.get_runtime_context().get_job_id()}"
