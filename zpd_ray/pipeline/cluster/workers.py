"""The actors of a session: they stay up from stage to stage, and in a comparison from run to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ray

from zpd_ray.engines import ENGINES
from zpd_ray.engines.base import ModelRef
from zpd_ray.pipeline.cluster.resources import room_for_both
from zpd_ray.rundir import Run
from zpd_ray.terminal import say

if TYPE_CHECKING:
    from zpd_ray.pipeline.measure.scorers import Scorers
    from zpd_ray.pipeline.train.job import TrainJob

Setup = dict[str, Any]  # what of a config decides whether actors that are up can do the work of a run


class Workers:
    """Scoring actors, training job, ability actor; each starts when it is first asked for.

    What another run has started serves a run that would have started the same.
    """

    def __init__(self) -> None:
        """There are none yet."""
        self._scorers: Scorers | None = None
        self._train_job: TrainJob | None = None
        self._ability: Any = None
        self._scoring: Setup = {}
        self._training: Setup = {}
        self._beside = False  # the training job has its place beside the scoring actors

    def scorers(self, run: Run, model: ModelRef) -> Scorers:
        """The scoring actors, started when there are none, or those there are have another kind of model."""
        from zpd_ray.pipeline.measure.scorers import Scorers

        setup = scoring_setup(run, model)
        if self._scorers is not None and self._scoring != setup:
            self.close_scorers()
        if self._scorers is None:
            actors = run.config.cluster.actors
            say(f"starting {actors} scoring actor{'s' * (actors > 1)} with {model.base}")
            self._scorers, self._scoring = Scorers(run), setup
        return self._scorers

    @property
    def score(self) -> bool:
        """Whether scoring actors have their place."""
        return self._scorers is not None

    def train_job(self, run: Run) -> TrainJob:
        """The training job, started when there is none, or the one there is has failed."""
        from zpd_ray.pipeline.train.job import TrainJob  # torch: not for runs that do not train

        setup = training_setup(run)
        if self._train_job is not None and (self._train_job.failed or self._training != setup):
            self.close_train_job()
        if self._train_job is None:
            self._beside = room_for_both(run.config, self.score)
            if not self._beside:
                self.close_scorers()
            say("starting the training job")
            self._train_job, self._training = TrainJob(run), setup
        return self._train_job

    def ability_actor(self) -> Any:
        """The central actor. It takes no CPU, and is restarted when it dies."""
        from zpd_ray.pipeline.fit.actor import AbilityActor

        if self._ability is None:
            actor = ray.remote(AbilityActor)
            self._ability = actor.options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
        return self._ability

    def rest_after_training(self) -> None:
        """Where there was no room for both, scoring actors and train workers take turns."""
        if not self._beside:
            self.close_train_job()

    def close(self) -> None:
        """End all of them."""
        self.close_train_job()
        self.close_scorers()
        self._ability = None

    def close_scorers(self) -> None:
        """End the scoring actors, if there are any."""
        if self._scorers is not None:
            self._scorers.close()
        self._scorers = None

    def close_train_job(self) -> None:
        """End the training job, if there is one."""
        if self._train_job is not None:
            self._train_job.close()
        self._train_job = None


def scoring_setup(run: Run, model: ModelRef) -> Setup:
    """Of the scoring actors: the weights, and what an engine of ours reads of the config when it is loaded.

    One of the user's may read whatever else there is, so it serves one run alone.
    """
    sections = {"seed", "model", "engine", "measure", "cluster", "pool", "evaluation"}
    train = run.config.train.model_dump(include={"method", "lora", "turns", "target"})
    own = {} if run.config.engine.name in ENGINES else {"root": run.store.root}
    return {"family": run.family(model), "train": train} | run.config.model_dump(include=sections) | own


def training_setup(run: Run) -> Setup:
    """Of the training job: its workers, and whose loop they run.

    Our own loop loads the model anew when a stage is another run's; one of the user's need not, so it serves
    one run alone.
    """
    train, cluster = run.config.train, run.config.cluster
    own = {"root": run.store.root} if train.function else {}
    return {"train": train.model_dump(include={"function", "workers"}), "cluster": cluster.model_dump()} | own
