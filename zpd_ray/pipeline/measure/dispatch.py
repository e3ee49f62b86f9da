"""Handing the parts to the scorers: by one task, in which a thread waits for each part in hand.

It is Ray Data's, on the driver's node: no other node's death ends it. A task and no actor: for that a process
would be started anew, at a second of a core for every pass, and for this there is one already.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event, Lock
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError, WorkerCrashedError

from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster.parts import dataset_of
from zpd_ray.pipeline.measure.scorer import EngineFailureError
from zpd_ray.pipeline.measure.scorers import CONTROL, IN_HAND, Scorers
from zpd_ray.pipeline.measure.watch import HungError, Watch
from zpd_ray.ray_folder import ray_logs

ATTEMPTS = 4  # at a part, by scorers that die or whose engine fails
HUNG_ATTEMPTS = 2  # of these, by scorers that hang
PAUSE_SECONDS = 3.0  # before the second attempt; twice that before the third, and so on
ANSWER_SECONDS = 600.0  # in which one of the scorers has to answer: an autoscaler may be fetching machines
RETRY_SECONDS = 0.5
AWAY_SECONDS = 30.0  # in which a scorer that was away is the last to be asked


def dispatch(scorers: Scorers, parts: list[str], *arguments: Any) -> Iterator[dict[str, Any]]:
    """What ``Scorer.measure`` counts in each part, in the order of finishing.

    With it come the index of its ``scorer`` and the time ``at`` which it was done, in seconds since 1970.
    arguments: those of ``Scorer.measure`` before the part's name. Where the process that hands out the parts
    dies, another one hands out again what was not finished. Raises ZpdError when that happens several times
    without a part being finished, and what ``Dispatcher.measure`` raises.
    """
    left, deaths = dict.fromkeys(parts), 0
    while left:
        try:
            for row in _rows(scorers, list(left), arguments):
                del left[row.pop("part")]
                deaths = 0
                yield row
        except (WorkerCrashedError, OutOfMemoryError) as death:
            deaths += 1
            if deaths == ATTEMPTS:
                raise ZpdError(
                    f"the process that hands out parts died {deaths} times: {death}; parts that are done are "
                    "kept: mend the cause (often memory) and run again"
                ) from None


def _rows(scorers: Scorers, parts: list[str], arguments: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    one_task = dataset_of(parts, blocks=1)
    one_task.context.target_max_block_size = 1  # a row is told when the next one is there, not at the end
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    with warnings.catch_warnings():
        # Of max_retries, for which Ray Data 2.60 has no other way: Ray would hand out finished parts again.
        warnings.simplefilter("ignore", DeprecationWarning)
        counts = one_task.map_batches(
            hand_out,  # type: ignore[arg-type]  # declared for functions of a batch alone
            fn_args=(scorers, arguments),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=0,
            label_selector=here,
            max_retries=0,
        )
    return iter(counts.iter_rows())


def hand_out(parts: pa.Table, scorers: Scorers, arguments: tuple[Any, ...]) -> Iterator[pa.Table]:
    """Counts of each part of the table, with its name: a row as soon as it is measured."""
    names = parts["part"].to_pylist()
    dispatcher = Dispatcher(scorers, arguments)
    threads = ThreadPoolExecutor(min(len(scorers.actors) * IN_HAND, len(names)))
    try:
        for done in as_completed([threads.submit(dispatcher.measure, name) for name in names]):
            yield pa.Table.from_pylist([done.result()])
    finally:
        dispatcher.stop()
        threads.shutdown(wait=False, cancel_futures=True)


class Balancer:
    """Tells which scorer is the least busy; for many threads."""

    def __init__(self, scorers: int) -> None:
        """All of so many are idle."""
        self._lock = Lock()
        self._busy = [0] * scorers
        self._missed = [-math.inf] * scorers  # when each was last found away

    def take(self) -> int:
        """The index of a scorer, which counts as busier from here on.

        One that was found away is named for some time only when the others have enough in hand: to see
        whether it is back.
        """
        since = time.monotonic() - AWAY_SECONDS
        with self._lock:
            scorers = range(len(self._busy))
            free = [i for i in scorers if self._busy[i] < IN_HAND] or scorers
            index = min(free, key=lambda i: (self._missed[i] > since, self._busy[i]))
            self._busy[index] += 1
        return index

    def give_back(self, index: int, well: bool) -> None:
        """A part is done with, or the scorer died or did not answer."""
        with self._lock:
            self._busy[index] -= 1
            if not well:
                self._missed[index] = time.monotonic()


class Dispatcher:
    """Measures one part after another, in many threads."""

    def __init__(self, scorers: Scorers, arguments: tuple[Any, ...]) -> None:
        """arguments: those of ``Scorer.measure`` before the part's name."""
        self._scorers, self._arguments = scorers, arguments
        self._balancer = Balancer(len(scorers.actors))
        self._watch = Watch(scorers)
        self._stopped = Event()

    def stop(self) -> None:
        """Threads that wait for a scorer give up: the process lives on, for what comes next."""
        self._stopped.set()

    def measure(self, name: str) -> dict[str, Any]:
        """``Scorer.measure`` of part ``name`` by the least busy scorer, with its name, by whom and when.

        A scorer that dies is restarted by Ray, one whose engine fails is ended; the part is done again, a few
        times, by whoever is free. Raises ZpdError when that did not help, and what else the scorer raised.
        """
        reason, hung = "", 0
        for attempt in range(ATTEMPTS):
            self._stopped.wait(PAUSE_SECONDS * attempt)  # a restarted actor is back in seconds
            index = self._take()
            scorer, well = self._scorers.actors[index], True
            try:
                counts = self._watch.wait(index, scorer.measure.remote(*self._arguments, name))
                return counts | {"part": name, "scorer": index, "at": time.time()}
            except HungError as silence:
                reason, well, hung = str(silence), False, hung + 1
                if hung == HUNG_ATTEMPTS:
                    break
            except (RayActorError, OutOfMemoryError) as death:
                reason, well = str(death).partition("\n")[0], False
            except RayTaskError as error:
                if not isinstance(error.cause, EngineFailureError):
                    raise
                reason, well = str(error.cause), False
                scorer.end.options(concurrency_group=CONTROL).remote(error.cause.life)
            finally:
                self._balancer.give_back(index, well)
        raise ZpdError(
            f"part {name} could not be measured in {attempt + 1} attempts: {reason}; parts that are done are "
            f"kept: see {ray_logs()} for the scoring actors, mend the cause (often memory) and run again"
        )

    def _take(self) -> int:
        """The index of the least busy scorer that answers.

        A scorer waits for its place where an autoscaler fetches nodes or a node was lost: others go on.
        """
        deadline = time.monotonic() + ANSWER_SECONDS
        while not self._stopped.is_set() and (time.monotonic() < deadline or self._scorers.answer()):
            index = self._balancer.take()
            if self._scorers.answer([index]):
                return index
            self._balancer.give_back(index, False)
            time.sleep(RETRY_SECONDS)  # one that is being restarted says so at once
        raise ZpdError(
            f"none of {len(self._scorers.actors)} scoring actors answered within {ANSWER_SECONDS:g} s: they "
            "wait for a node with room, or die as soon as they have one; parts that are done are kept: see "
            f"`ray status` and {ray_logs()} for the scoring actors, and run again"
        )
