"""The pool of scoring actors: engines that stay up from stage to stage, as long as there is room for them.

Ray Data's own actor pool ends with its dataset, and an engine takes up to minutes to start. So the engines
live in actors of their own, and what Ray Data runs (``dispatch``) hands each part to one of them and waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from zpd_ray.config import ClusterConfig
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster.resources import score_nodes
from zpd_ray.pipeline.measure.scorer import Scorer
from zpd_ray.rundir import Run

IN_HAND = 2  # parts that a scorer has at a time: one is computed, the next is turned into ids
CONTROL = "control"  # the concurrency group of what is asked of a scorer while it measures
PLACE_SECONDS = 600.0  # an autoscaler may be fetching machines
ANSWER_SECONDS = 10.0
GLANCE_SECONDS = 2.0  # for the progress bar


class Scorers:
    """Handles of the scoring actors; can be sent to other processes."""

    def __init__(self, run: Run) -> None:
        """Start the actors. Raises ZpdError when the cluster gives them no place."""
        cluster = run.config.cluster
        self.patience = run.config.measure.patience
        remote: Any = ray.remote(concurrency_groups={CONTROL: 1})  # type: ignore[call-overload]
        actor = remote(Scorer).options(
            num_cpus=cluster.cpus_per_actor,
            num_gpus=cluster.gpus_per_actor,
            max_concurrency=IN_HAND,
            max_restarts=-1,
            scheduling_strategy="SPREAD",
            label_selector=score_nodes(cluster) or None,
        )
        self.actors: list[Any] = [actor.remote(cluster.gpus_per_actor) for _ in range(cluster.actors)]
        self._wait_for_places(cluster)

    def answer(self, which: Iterable[int] | None = None) -> bool:
        """Whether one of these scorers (None: of all) is up and answers, whatever it has in hand."""
        actors = self.actors if which is None else [self.actors[index] for index in which]
        asked = [actor.__ray_ready__.options(concurrency_group=CONTROL).remote() for actor in actors]
        while asked:
            answered, asked = ray.wait(asked, timeout=ANSWER_SECONDS)
            if not answered:
                return False
            with suppress(RayActorError):  # it is being restarted
                ray.get(answered)
                return True
        return False

    def ask(self, method: str, which: Iterable[int], seconds: float = ANSWER_SECONDS) -> dict[int, Any]:
        """What each of these scorers answers to a method without arguments; one that is away is left out."""
        asked = {
            getattr(self.actors[index], method).options(concurrency_group=CONTROL).remote(): index
            for index in which
        }
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=seconds)
        answers = {}
        for reference in ready:
            with suppress(RayError):  # it is away, or could not say: that ends nothing
                answers[asked[reference]] = ray.get(reference)
        return answers

    def items_done(self) -> int:
        """Items that all scorers have scored or completed since they were started; those away not counted."""
        pulses = self.ask("pulse", range(len(self.actors)), GLANCE_SECONDS)
        return sum(pulse.items for pulse in pulses.values() if pulse is not None)

    def close(self) -> None:
        """End the actors: their memory and their place in the cluster are free for others."""
        for actor in self.actors:
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
