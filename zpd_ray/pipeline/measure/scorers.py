"""The pool of scoring actors: engines that stay up from stage to stage, as long as there is room for them.

Ray Data's own actor pool ends with its dataset, and an engine takes up to minutes to start. So the engines
live in actors of their own, and what Ray Data runs are light tasks, one per part, that hand their part to the
least busy scorer and wait. A scorer has two parts in hand: one is computed, the next is turned into ids.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from zpd_ray.config import ClusterConfig
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster.resources import score_nodes
from zpd_ray.pipeline.measure.scorer import EngineFailureError, Scorer
from zpd_ray.rundir import Run

IN_HAND = 2  # parts that a scorer has at a time
WORD = "word"  # what is asked of a scorer beside them
ATTEMPTS = 4  # at a part, by scorers that die or whose engine fails
PAUSE_SECONDS = 3.0  # before the second attempt; twice that before the third, and so on
PLACE_SECONDS = 600.0  # an autoscaler may be fetching machines
ANSWER_SECONDS = 10.0
AWAY_SECONDS = 30.0  # in which a scorer that was away is the last to be asked


class Desk:
    """Tells a task which scorer is the least busy."""

    def __init__(self) -> None:
        """No scorers yet."""
        self._busy: list[int] = []
        self._missed: list[float] = []  # when each was last found away

    def take(self, scorers: int) -> int:
        """The index of one of so many scorers, which counts as busier from here on.

        One that was found away is named for some time only when the others have enough in hand: to see
        whether it is back.
        """
        if len(self._busy) != scorers:  # the first call, or this actor was restarted
            self._busy, self._missed = [0] * scorers, [-math.inf] * scorers
        since = time.monotonic() - AWAY_SECONDS
        free = [i for i in range(scorers) if self._busy[i] < IN_HAND] or range(scorers)
        index = min(free, key=lambda i: (self._missed[i] > since, self._busy[i]))
        self._busy[index] += 1
        return index

    def give_back(self, index: int, well: bool) -> None:
        """A part is done with, or the scorer died or did not answer."""
        self._busy[index] = max(0, self._busy[index] - 1)
        if not well:
            self._missed[index] = time.monotonic()


class Scorers:
    """Handles of the scoring actors and of their desk; sent to tasks."""

    def __init__(self, run: Run, family: str) -> None:
        """Start the actors. Raises ZpdError when the cluster gives them no place.

        family: of the models that they are to load (``Run.family``).
        """
        cluster, self.family = run.config.cluster, family
        remote: Any = ray.remote(concurrency_groups={WORD: 1})  # type: ignore[call-overload]
        actor = remote(Scorer).options(
            num_cpus=cluster.cpus_per_actor,
            num_gpus=cluster.gpus_per_actor,
            max_concurrency=IN_HAND,
            max_restarts=-1,
            scheduling_strategy="SPREAD",
            label_selector=score_nodes(cluster) or None,
        )
        self.actors: list[Any] = [actor.remote(run) for _ in range(cluster.actors)]
        self.desk: Any = ray.remote(Desk).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
        self._wait_for_places(cluster)

    def measure(self, name: str, *arguments: Any) -> dict[str, Any]:
        """``Scorer.measure`` of part ``name`` by the least busy scorer; called in a task.

        A scorer that dies is restarted by Ray, one whose engine fails is ended; the part is done again, a few
        times, by whoever is free. Raises ZpdError when that did not help, or when the scorer did.
        """
        reason = ""
        for attempt in range(ATTEMPTS):
            time.sleep(PAUSE_SECONDS * attempt)  # a restarted actor is back in seconds
            index = self._take()
            scorer, well = self.actors[index], True
            try:
                counts: dict[str, Any] = ray.get(scorer.measure.remote(*arguments, name))
                return counts | {"scorer": index}
            except (RayActorError, OutOfMemoryError) as death:
                reason, well = str(death).partition("\n")[0], False
            except RayTaskError as error:
                if not isinstance(error.cause, EngineFailureError):
                    raise
                reason, well = str(error.cause), False
                scorer.end.options(concurrency_group=WORD).remote(error.cause.life)
            finally:
                self.desk.give_back.remote(index, well)
        raise ZpdError(
            f"part {name} could not be measured in {ATTEMPTS} attempts: {reason}; parts that are done are "
            "kept: see the Ray logs of the scoring actors, mend the cause (often memory) and run again"
        )

    def _take(self) -> int:
        """The index of the least busy scorer that answers.

        A scorer waits for its place where an autoscaler fetches nodes or a node was lost: others go on.
        """
        deadline = time.monotonic() + PLACE_SECONDS
        while time.monotonic() < deadline or self._answers(self.actors):
            index: int = ray.get(self.desk.take.remote(len(self.actors)))
            if self._answers([self.actors[index]]):
                return index
            self.desk.give_back.remote(index, False)
        raise ZpdError(
            f"none of {len(self.actors)} scoring actors answered within {PLACE_SECONDS:g} s: they wait for a "
            "node with room, or die as soon as they have one; parts that are done are kept: see `ray status` "
            "and the Ray logs of the scoring actors, and run again"
        )

    def _answers(self, actors: list[Any]) -> bool:
        """Whether one of them does, whatever it has in hand."""
        asked = [actor.__ray_ready__.options(concurrency_group=WORD).remote() for actor in actors]
        answered, _ = ray.wait(asked, timeout=ANSWER_SECONDS)
        return bool(answered)

    def ask(self, method: str, which: Iterable[int]) -> dict[int, Any]:
        """What each of these scorers answers to a method without arguments; one that is away is left out."""
        asked = {
            getattr(self.actors[index], method).options(concurrency_group=WORD).remote(): index
            for index in which
        }
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
        answers = {}
        for reference in ready:
            with suppress(RayActorError):
                answers[asked[reference]] = ray.get(reference)
        return answers

    def close(self) -> None:
        """End the actors: their memory and their place in the cluster are free for others."""
        for actor in (*self.actors, self.desk):
            with suppress(RayError):  # a cluster that is gone has ended them
                ray.kill(actor)

    def _wait_for_places(self, cluster: ClusterConfig) -> None:
        """For all of them; where an autoscaler fetches nodes, for the first, the others join later."""
        ready = [actor.__ray_ready__.remote() for actor in self.actors]
        needed = 1 if cluster.autoscaling else len(ready)
        placed, _ = ray.wait(ready, num_returns=needed, timeout=PLACE_SECONDS)
        if len(placed) < needed:
            self.close()
            free = {name: ray.available_resources().get(name, 0.0) for name in ("CPU", "GPU")}
            raise ZpdError(
                f"{len(placed)} of {len(ready)} scoring actors found a place within {PLACE_SECONDS:g} s; "
                f"each asks for {cluster.cpus_per_actor:g} CPUs and {cluster.gpus_per_actor:g} GPUs on one "
                f"node, free are {free['CPU']:g} CPUs and {free['GPU']:g} GPUs in all; wait for those who "
                "hold the rest, or lower cluster.actors"
            )
