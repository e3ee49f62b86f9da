"""The whole config of a run, and what its sections must agree on."""

from __future__ import annotations

from pydantic import Field, model_validator

from zpd_ray.config.measuring import AbilityConfig, EngineConfig, MeasureConfig
from zpd_ray.config.section import Count, NonEmpty, Section
from zpd_ray.config.selecting import SelectConfig
from zpd_ray.config.sources import ModelConfig, PoolConfig, SourceConfig
from zpd_ray.config.tracking import TrackConfig
from zpd_ray.config.training import ClusterConfig, TrainConfig


class Config(Section):
    """A run, whole."""

    output: NonEmpty = Field(description="run directory: a local path or a URI that pyarrow.fs opens")
    seed: int = Field(0, ge=0, description="of everything that is drawn; the same seed gives the same bytes")
    stages: Count = Field(3, description="times that the loop measures, selects and trains")
    report: bool = Field(True, description="write report.html after each stage, as `zpd-ray report` does")
    pool: PoolConfig
    evaluation: SourceConfig | None = Field(
        None, description="Items that are never trained on: accuracy before and after each stage."
    )
    model: ModelConfig
    engine: EngineConfig = EngineConfig()
    measure: MeasureConfig = MeasureConfig()
    ability: AbilityConfig = AbilityConfig()
    select: SelectConfig
    train: TrainConfig = TrainConfig()
    cluster: ClusterConfig = ClusterConfig()
    track: TrackConfig = TrackConfig()

    @model_validator(mode="after")
    def _something_to_train_on(self) -> Config:
        built_in = self.train.method != "none" and self.train.function is None
        if built_in and not self.completes:
            raise ValueError(
                f"pool.reference = {self.pool.reference!r} leaves train.method = {self.train.method!r} "
                "nothing to train on; expected train.target = 'own', train.method = 'none', or a "
                "train.function that needs no references"
            )
        return self

    @model_validator(mode="after")
    def _prompts_alone_have_no_responses(self) -> Config:
        if not self.pool.prompts_alone:
            return self
        if self.train.turns == "all":
            raise ValueError(
                "train.turns = 'all' measures and trains on the answers that rows hold, and pool.reference = "
                "'prompt' reads none; leave one of them out"
            )
        if self.select.budget.tokens is not None:
            raise ValueError(
                "select.budget.tokens counts tokens of responses, and prompts alone (pool.reference = "
                "'prompt') have none; give select.budget.items or select.budget.fraction"
            )
        if self.ability.calibration == "feedback":
            raise ValueError(
                "ability.calibration = 'feedback' takes an item of higher NLL for a harder one, which holds "
                "of a reference and need not of a prompt (pool.reference = 'prompt'); take 'explanatory', "
                "which estimates what the NLL says"
            )
        return self

    @model_validator(mode="after")
    def _evaluation_is_not_trained_on(self) -> Config:
        if self.evaluation is not None and self.evaluation.reference in ("answer", "none"):
            raise ValueError(
                f"evaluation.reference = {self.evaluation.reference!r} says whether answers are trained on, "
                "and nothing of the evaluation set is; leave it out, or take 'prompt' where its rows hold "
                "prompts alone"
            )
        return self

    @model_validator(mode="after")
    def _own_is_the_last_turn(self) -> Config:
        if self.train.turns == "all" and self.train.target == "own":
            raise ValueError(
                "train.target = 'own' puts a response of the model's own in the place of the last turn, and "
                "train.turns = 'all' trains on the turns before it as well, which are the references'; leave "
                "one of them out"
            )
        return self

    @property
    def completes(self) -> bool:
        """Whether what is selected has something to train on: a reference, or a response of the model's."""
        return self._has_references or self.train.target == "own"

    @property
    def only_own(self) -> bool:
        """Whether nothing but right responses of the model's own is trained on."""
        return not self._has_references and self.train.target == "own"

    @property
    def prompts_alone(self) -> bool:
        """Whether the items of the pool have no responses, and their NLLs are those of their prompts."""
        return self.pool.prompts_alone

    @property
    def reads_prompts(self) -> bool:
        """Whether items of the pool, or of the evaluation set, are prompts alone."""
        return self.prompts_alone or (self.evaluation is not None and self.evaluation.prompts_alone)

    @property
    def _has_references(self) -> bool:
        """Whether the responses of the pool may be trained on."""
        return self.pool.reference not in ("none", "prompt")

    @model_validator(mode="after")
    def _rounds_measure_the_model_that_trained(self) -> Config:
        if self.measure.scope != "pool" and self.cluster.placement == "split":
            raise ValueError(
                f"measure.scope = {self.measure.scope!r} follows ability by probes from stage to stage, and "
                "cluster.placement = 'split' measures a model that is a stage behind, which was not tried "
                "together; take measure.scope = 'pool', or cluster.placement = 'shared'"
            )
        return self

    @model_validator(mode="after")
    def _batches_divide_among_workers(self) -> Config:
        if self.train.batch_size % self.train.workers:
            raise ValueError(
                f"train.batch_size = {self.train.batch_size} does not divide among "
                f"train.workers = {self.train.workers}; make it a multiple"
            )
        return self
